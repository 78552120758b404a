/**
 * What the sample data is worded with. Lists are one text each, parted by `|`; `{x}` in a template is a word of list x.
 *
 * @module
 */

const list = (text: string) => text.split("|").map((item) => item.trim());

/** A text with holes: texts, and between them the lists that fill the holes, undefined for the post's own things. */
export interface Template {
  texts: string[];
  fillings: (readonly string[] | undefined)[];
}
const templates = (lines: string[]): Template[] =>
  lines.map((line) => {
    const parts = line.split(/[{}]/); // texts at even places, names of lists at odd ones
    const names = parts.filter((_, i) => i % 2 === 1) as (keyof typeof lists | "thing")[];
    return {
      texts: parts.filter((_, i) => i % 2 === 0),
      fillings: names.map((name) => (name === "thing" ? undefined : lists[name])),
    };
  });

/** Every word with a capital. */
const headline = (text: string) => text.replace(/(?<![\w'])[a-z]/g, (letter) => letter.toUpperCase());

/** The lists that templates name; `thing` is the category's own. */
export const lists = {
  adjective: list(
    "Easy|Stunning|Simple|Cozy|Timeless|Bold|Affordable|Dreamy|Modern|Rustic|Clever|Gorgeous|Minimalist|Unexpected|Elegant|Creative",
  ),
  number: list("5|7|9|10|11|12|15|17|20|21|25|30|33|40|50|75|101"),
  people: list(
    "beginners|busy moms|teachers|couples|small spaces|tiny budgets|teens|kids|first-timers|everyone|night owls|students",
  ),
  season: list(
    "this spring|this summer|this fall|this winter|2018|2019|2020|2021|2022|the holidays|rainy days|your next weekend",
  ),
  verb: list("try|save|copy|love|make|share|pin|remember"),
  first: list(
    "Olivia|Liam|Emma|Noah|Ava|Ethan|Sophia|Mason|Mia|Lucas|Amelia|Aiden|Harper|Caleb|Ella|Isaac|Chloé|José|Zoë|Mateo|Ingrid|Søren|Aïcha|Wei|Yuki|Priya|Omar|Fatima|Olga|Dmitri|Siobhán|Łukasz|Nuñez|Renée|Abby|Aaron|Adam|Alan|Alicia|Amanda|Amy|Andrew|Angela|Anna|Ashley|Barbara|Benjamin|Brandon|Brian|Carlos|Cynthia|Daniel|David|Diana|Erin",
  ),
  last: list(
    "Smith|Johnson|Williams|Brown|Jones|Garcia|Miller|Davis|Rodriguez|Martinez|Hernandez|Lopez|Gonzalez|Wilson|Anderson|Thomas|Taylor|Moore|Jackson|Martin|Lee|Perez|Thompson|White|Harris|O'Connor|O'Neill|D'Angelo|Müller|Søndergaard|García-López|St. John|van den Berg|Abbott|Acosta|Adams|Aguilar|Alexander|Allen|Alvarez|Andrade|Armstrong|Arnold|Atkins|Austin|Bailey|Baker|Barnes|Bell|Bennett",
  ),
  brand: list(
    "Craft|Nest|Daily|Studio|Haven|Journal|Collective|Corner|Diaries|Lab|Club|Guide|Atelier|Magazine|House|Box",
  ),
  tag: list(
    "Inspiration|Diy|Ideas|Aesthetic|Tutorial|Vintage|How To|Step By Step|Free Printables|Before And After|Photography|Trends|Minimal|Colorful|On A Budget|For Beginners|Style|Decor|Gifts|Patterns",
  ),
  /** What breaks careless code: quotes, backslashes, tabs, line breaks, emoji, right-to-left, combining characters. */
  oddity: [
    "❤️",
    "✨🎄✨",
    "👩‍🍳",
    "🇫🇷",
    "👍🏽",
    '"so good"',
    "it's ‘the’ one",
    "C:\\photos\\new",
    "\\n is not a newline",
    "\\N",
    "a\tb",
    "one\ntwo",
    "one\r\ntwo",
    "\n\n• first\n• second\n",
    "مرحبا بالعالم",
    "שלום עולם",
    "\u202bעברית\u202c",
    "e\u0301te\u0301",
    "Z\u0351\u036b\u0343a\u0336lgo",
    "zero\u200bwidth",
    "non\u00a0breaking",
    "日本語のアイデア",
    "한국어",
    "Привет",
    "ñandú",
    "½ m²",
    "100 %",
    "<b>bold</b>",
    "&amp;",
    "{{name}}",
    "${x}",
    "NULL",
    "null",
    "--",
    "/* */",
    "bell\u0007",
    "\ufeffmark",
    "line\u2028separator",
    "𝒻𝒶𝓃𝒸𝓎",
    "a,b;c|d",
    "'; DROP TABLE pins; --",
  ],
};

/** The 13 categories in the order of their blocks, each with what its posts are about (`{thing}`) and their tags. */
export const categories = Object.entries({
  art: "watercolor landscapes|abstract canvases|charcoal portraits|line drawings|acrylic paintings|clay sculptures|gouache florals|pen sketches|pop art prints|sketchbook pages",
  beauty:
    "everyday makeup looks|balayage hair colors|gel nail designs|skincare routines|smoky eye tutorials|braided hairstyles|lip color swatches|curtain bangs|brow shapes|glow serums",
  christmas:
    "gingerbread houses|advent calendars|tree ornaments|stocking stuffers|wreath projects|holiday cookies|mantel decorations|gift wrapping tricks|snow globes|winter table settings",
  "diy-and-crafts":
    "macrame wall hangings|pallet shelves|crochet patterns|paper flowers|resin coasters|upcycled jars|felt animals|no-sew pillows|candle molds|washi tape cards",
  education:
    "phonics worksheets|fraction games|reading corners|science experiments|bullet journal spreads|classroom rules|sight word cards|study playlists|history timelines|math centers",
  "event-planning":
    "backyard weddings|baby shower themes|seating charts|balloon arches|dessert tables|party checklists|rustic centerpieces|bridal brunches|photo booth props|budget planners",
  finance:
    "savings challenges|debt snowball trackers|budget binders|side hustles|index funds|grocery budgets|no-spend months|credit score habits|cash envelopes|retirement plans",
  "home-decor":
    "farmhouse kitchens|small bathroom makeovers|gallery walls|boho bedrooms|entryway benches|open shelves|living room layouts|accent walls|patio lights|linen closets",
  "mens-fashion":
    "linen suits|street style outfits|capsule wardrobes|leather boots|denim jackets|wedding guest looks|beard styles|wool overcoats|summer shirts|vintage watches",
  quotes:
    "motivational sayings|quotes about love|friendship lines|Monday mantras|song lyrics|wisdom for hard days|stoic thoughts|funny one-liners|journal prompts|mindset reminders",
  tattoos:
    "fine line tattoos|forearm sleeves|floral shoulder pieces|minimalist symbols|matching tattoos|blackwork designs|behind-the-ear ideas|script lettering|Japanese koi|ankle bracelets",
  travel:
    "hidden beaches|road trip routes|packing lists|weekend city breaks|hiking trails|train journeys|street food tours|island itineraries|budget hostels|camper van stops",
  vehicles:
    "classic muscle cars|camper conversions|cafe racers|off-road trucks|vintage convertibles|electric hatchbacks|garage setups|detailing tips|rally legends|motorcycle builds",
}).map(([name, items]) => {
  const things = list(items);
  const tags = things.flatMap((thing) => [
    ...lists.adjective.slice(0, 8).map((adjective) => `${adjective} ${headline(thing)}`),
    ...Array<string>(8).fill(headline(thing)),
  ]);
  return { name, things, tags: [...tags, ...lists.tag.flatMap((tag) => [tag, `${headline(name)} ${tag}`])] };
});

/** Titles; the last ones are in other languages. */
export const titles = templates([
  "{number} {adjective} {thing} for {people}",
  "{adjective} {thing} to {verb} {season}",
  "How to get started with {thing}",
  "{thing}: {number} ideas for {season}",
  "The best {thing} of {season}",
  "{adjective} and {adjective} {thing}",
  "Why I {verb} {thing} | {first} {last}",
  "{adjective} {thing}",
  "{first}'s guide to {thing}",
  "{number} {thing} you will {verb}",
  "{number} idées à copier : {thing}",
  "Die {number} schönsten Ideen für {season} – {thing}",
  "{number} ideas fáciles para hacer en casa: ¡{thing}!",
  "Inspirações: {thing} – não é difícil",
  "{thing} のアイデア {number} 選",
  "{number} идей: {thing}",
]);

/** The sentences that descriptions are made of. */
export const sentences = templates([
  "Looking for {thing}? These {number} ideas are perfect for {people}.",
  "{adjective} {thing} that you can {verb} today, even if you have never tried it before.",
  "I could not stop looking at these {thing}, so here is how {first} and I made them for {season}.",
  "Click through to read the full post with photos, prices and a free printable checklist.",
  "Whether you plan for {season} or just need something {adjective}, this list has you covered!",
  "From {thing} to {thing}: everything {people} should know.",
  "Follow {first} {last} for more {adjective} ideas every day.",
  "It took one afternoon & less than ${number}.",
  "Sin gastar mucho: {thing} para {season}, paso a paso.",
  "Des idées simples et pas chères pour {season} ; l'essentiel est d'oser.",
  "Schöne Ideen für zu Hause – größer, bunter, günstiger.",
  "#{brand} #{tag} #{season}",
]);

/** Names of posters. */
export const posters = templates([
  "{first} {last}",
  "The {adjective} {brand}",
  "{first} | {tag} {brand}",
  "{first} {last} - {adjective} {tag}",
  "{last} {brand}",
  "{first} & {first}",
  "{adjective} {tag}",
  "{tag} with {first}",
  "The {last} {brand} | {tag}, {tag} & {tag}",
]);

/** The 241 countries, those that begin with A first: a third of the rows are theirs alone. */
export const countries = list(
  "Afghanistan|Albania|Algeria|American Samoa|Andorra|Angola|Anguilla|Antarctica (the territory South of 60 deg S)|Antigua and Barbuda|Argentina|Armenia|Aruba|Australia|Austria|Azerbaijan|" +
    "Bahamas|Bahrain|Bangladesh|Barbados|Belarus|Belgium|Belize|Benin|Bermuda|Bhutan|Bolivia|Bosnia and Herzegovina|Botswana|Bouvet Island (Bouvetoya)|Brazil|British Indian Ocean Territory (Chagos Archipelago)|British Virgin Islands|Brunei Darussalam|Bulgaria|Burkina Faso|Burundi|" +
    "Cambodia|Cameroon|Canada|Cape Verde|Cayman Islands|Central African Republic|Chad|Chile|China|Christmas Island|Cocos (Keeling) Islands|Colombia|Comoros|Congo|Cook Islands|Costa Rica|Cote d'Ivoire|Croatia|Cuba|Cyprus|Czech Republic|" +
    "Denmark|Djibouti|Dominica|Dominican Republic|Ecuador|Egypt|El Salvador|Equatorial Guinea|Eritrea|Estonia|Ethiopia|Falkland Islands (Malvinas)|Faroe Islands|Fiji|Finland|France|French Guiana|French Polynesia|French Southern Territories|" +
    "Gabon|Gambia|Georgia|Germany|Ghana|Gibraltar|Greece|Greenland|Grenada|Guadeloupe|Guam|Guatemala|Guernsey|Guinea|Guinea-Bissau|Guyana|Haiti|Heard Island and McDonald Islands|Holy See (Vatican City State)|Honduras|Hong Kong|Hungary|" +
    "Iceland|India|Indonesia|Iran|Iraq|Ireland|Isle of Man|Israel|Italy|Jamaica|Japan|Jersey|Jordan|Kazakhstan|Kenya|Kiribati|Korea|Kuwait|Kyrgyz Republic|Lao People's Democratic Republic|Latvia|Lebanon|Lesotho|Liberia|Libyan Arab Jamahiriya|Liechtenstein|Lithuania|Luxembourg|" +
    "Macao|Macedonia|Madagascar|Malawi|Malaysia|Maldives|Mali|Malta|Marshall Islands|Martinique|Mauritania|Mauritius|Mexico|Micronesia|Moldova|Monaco|Mongolia|Montenegro|Montserrat|Morocco|Mozambique|Myanmar|Namibia|Nauru|Nepal|Netherlands|Netherlands Antilles|New Caledonia|New Zealand|Nicaragua|Niger|Nigeria|Niue|Norfolk Island|Northern Mariana Islands|Norway|" +
    "Oman|Pakistan|Palau|Palestinian Territory|Panama|Papua New Guinea|Paraguay|Peru|Philippines|Pitcairn Islands|Poland|Portugal|Puerto Rico|Qatar|Reunion|Romania|Russian Federation|Rwanda|" +
    "Saint Barthelemy|Saint Helena|Saint Kitts and Nevis|Saint Lucia|Saint Martin|Saint Pierre and Miquelon|Saint Vincent and the Grenadines|Samoa|San Marino|Sao Tome and Principe|Saudi Arabia|Senegal|Serbia|Seychelles|Sierra Leone|Singapore|Slovakia (Slovak Republic)|Slovenia|Solomon Islands|Somalia|South Africa|South Georgia and the South Sandwich Islands|Spain|Sri Lanka|Sudan|Suriname|Svalbard & Jan Mayen Islands|Swaziland|Sweden|Switzerland|Syrian Arab Republic|" +
    "Taiwan|Tajikistan|Tanzania|Thailand|Timor-Leste|Togo|Tonga|Trinidad and Tobago|Tunisia|Turkey|Turkmenistan|Turks and Caicos Islands|Tuvalu|Uganda|Ukraine|United Arab Emirates|United Kingdom|United States Minor Outlying Islands|United States Virgin Islands|United States of America|Uruguay|Uzbekistan|Vanuatu|Venezuela|Vietnam|Wallis and Futuna|Western Sahara|Yemen|Zambia|Zimbabwe",
);
