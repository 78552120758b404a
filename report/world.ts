/**
 * The world map: finds countries by name, and draws them in an equal-area projection.
 *
 * @module
 */

import { type ExtendedFeature, geoBounds, geoEqualEarth, geoPath } from "d3-geo";
import { feature } from "topojson-client";
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

const [width, height] = [720, 352];
/** Smaller shapes, in square units of a map 720 wide, are drawn as dots. */
const smallest = 8;

type Topology = Parameters<typeof feature>[0];
type Country = ExtendedFeature & { properties: { name: string } };

/** Reads the atlas: coarse outlines, and finer ones for the countries that the coarse atlas does not have. */
export function openWorld(): World {
  const coarse = new Map(readAtlas("countries-110m.json").map((country) => [country.name, country]));
  const projection = geoEqualEarth().fitExtent(
    [
      [2, 2],
      [width - 2, height - 2],
    ],
    { type: "Sphere" },
  );
  const path = geoPath(projection).digits(1);
  const sphere = html`<path id="sphere" d="${geoPath(projection.precision(0.5)).digits(1)({ type: "Sphere" })}"/>`;
  projection.precision(0);
  const places = new Map<string, Place>();
  const shapes = readAtlas("countries-50m.json").map((country, i) => {
    const { name } = country;
    const outline = coarse.get(name) ?? country;
    const id = `c${i}`;
    const place: Place = {
      id,
      get box(): Place["box"] {
        const [[west, south], [east, north]] = geoBounds(outline.shape);
        return [west, south, east, north];
      },
    };
    places.set(plain(name), place);
    const other = otherNames[name];
    if (other) places.set(plain(other), place);
    const { shape } = outline;
    if (coarse.has(name) && path.area(shape) >= smallest) return html`<path id="${id}" d="${path(shape)}"/>`;
    const [x, y] = path.centroid(shape);
    return html`<circle id="${id}" cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="3"/>`;
  });
  // Dots come last, so that large neighbours do not cover them.
  shapes.sort((a, b) => Number(a.html.startsWith("<circle")) - Number(b.html.startsWith("<circle")));
  return {
    find: (name) => places.get(plain(name)),
    shapes: html`<svg class="shapes" width="0" height="0" aria-hidden="true"><defs>${sphere}<g id="land">${shapes}</g></defs></svg>`,
    map: (marks, label) => {
      const shown = marks.map(
        ({ place, color, title }) =>
          html`<use href="#${place.id}" style="fill: var(--${color})"><title>${title}</title></use>`,
      );
      return html`<svg class="map" viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}"><use href="#sphere" class="sea"/><use href="#land" class="land"/>${shown}</svg>`;
    },
  };
}

/** The countries of an atlas; outlines are computed when used. */
function readAtlas(file: string): { name: string; shape: Country }[] {
  const atlas = JSON.parse(ownText(`node_modules/world-atlas/${file}`)) as Topology;
  const { countries } = atlas.objects as { countries: { type: "GeometryCollection"; geometries: Geometry[] } };
  return countries.geometries.map((geometry) => ({
    name: geometry.properties.name,
    get shape() {
      return feature(atlas, geometry) as unknown as Country;
    },
  }));
}

type Geometry = Extract<Topology["objects"][string], { type: "Polygon" | "MultiPolygon" }> & {
  properties: { name: string };
};
