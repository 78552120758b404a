/**
 * The world map: finds countries by name, and draws them.
 *
 * @module
 */

import { ownText } from "../runtime/program.ts";
import { type Html, html } from "./html.ts";

/** A country of the map. */
export interface Place {
  /** The id of its shape in {@link World.shapes}. */
  id: string;
  /** West, south, east and north of the bounding box, degrees; across the date line west is greater than east. */
  box: [number, number, number, number];
}

export interface World {
  /** The country with a name, if it is on the map. */
  find(name: string): Place | undefined;
  /** The shapes of all countries, once in a page; the maps of {@link World.map} refer to them. */
  shapes: Html;
  /** A map with `marks` above the grey land; each has a colour of the page and a hover text. */
  map(marks: { place: Place; color: string; title: string }[], label: string): Html;
}

/** Names by those of the atlas, if {@link plain} does not make them equal. Ambiguous names, such as Korea, are left out. */
const otherNames: Record<string, string> = {
  Antarctica: "Antarctica (the territory South of 60 deg S)",
  "Antigua and Barb.": "Antigua and Barbuda",
  "Bosnia and Herz.": "Bosnia and Herzegovina",
  "Br. Indian Ocean Ter.": "British Indian Ocean Territory (Chagos Archipelago)",
  Brunei: "Brunei Darussalam",
  "Cabo Verde": "Cape Verde",
  Czechia: "Czech Republic",
  "Dem. Rep. Congo": "Democratic Republic of the Congo",
  "Eq. Guinea": "Equatorial Guinea",
  eSwatini: "Swaziland",
  "Faeroe Is.": "Faroe Islands",
  "Falkland Is.": "Falkland Islands (Malvinas)",
  "Fr. Polynesia": "French Polynesia",
  "Fr. S. Antarctic Lands": "French Southern Territories",
  "Heard I. and McDonald Is.": "Heard Island and McDonald Islands",
  Kyrgyzstan: "Kyrgyz Republic",
  Laos: "Lao People's Democratic Republic",
  Libya: "Libyan Arab Jamahiriya",
  "N. Mariana Is.": "Northern Mariana Islands",
  Palestine: "Palestinian Territory",
  Russia: "Russian Federation",
  "S. Geo. and the Is.": "South Georgia and the South Sandwich Islands",
  Slovakia: "Slovakia (Slovak Republic)",
  "St. Vin. and Gren.": "Saint Vincent and the Grenadines",
  Syria: "Syrian Arab Republic",
  "U.S. Virgin Is.": "United States Virgin Islands",
  "United Kingdom": "Great Britain",
  "United States of America": "United States",
  Vatican: "Holy See (Vatican City State)",
  "W. Sahara": "Western Sahara",
  "Wallis and Futuna Is.": "Wallis and Futuna",
};

/** A name in lower case without marks and punctuation, and with the usual abbreviations replaced. */
const plain = (name: string): string =>
  name
    .normalize("NFD")
    .replace(/\p{M}/gu, "")
    .toLowerCase()
    .replaceAll("&", " and ")
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .trim()
    .replace(/\bsaint\b/g, "st")
    .replace(/\bis$/, "islands")
    .replace(/\brep$/, "republic");

/** The size of the map, and its shapes, made by `build/world.ts`. */
export interface Atlas {
  width: number;
  height: number;
  /** The outline of the sphere, as an SVG path. */
  sphere: string;
  countries: Country[];
}

interface Country {
  name: string;
  box: Place["box"];
  /** The SVG path of its outline, or the centre of a country too small to have one. */
  outline: string | [number, number];
}

/** Reads the atlas. */
export function openWorld(): World {
  const { width, height, sphere, countries } = JSON.parse(ownText("report/world.json")) as Atlas;
  const places = new Map<string, Place>();
  const shapes = countries.map(({ name, box, outline }, i) => {
    const place = { id: `c${i}`, box };
    places.set(plain(name), place);
    const other = otherNames[name];
    if (other) places.set(plain(other), place);
    if (typeof outline === "string") return html`<path id="${place.id}" d="${outline}"/>`;
    const [x, y] = outline;
    return html`<circle id="${place.id}" cx="${x}" cy="${y}" r="3"/>`;
  });
  const land = html`<path id="sphere" d="${sphere}"/><g id="land">${shapes}</g>`;
  return {
    find: (name) => places.get(plain(name)),
    shapes: html`<svg class="shapes" width="0" height="0" aria-hidden="true"><defs>${land}</defs></svg>`,
    map: (marks, label) => {
      const shown = marks.map(
        ({ place, color, title }) =>
          html`<use href="#${place.id}" style="fill: var(--${color})"><title>${title}</title></use>`,
      );
      return html`<svg class="map" viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}"><use href="#sphere" class="sea"/><use href="#land" class="land"/>${shown}</svg>`;
    },
  };
}
