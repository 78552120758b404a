/**
 * Computes `report/world.json`, the shapes of the world map in an equal-area projection: `npm run generate`.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { type ExtendedFeature, geoBounds, geoEqualEarth, geoPath } from "d3-geo";
import { feature } from "topojson-client";
import type { Atlas } from "../report/world.ts";

const [width, height] = [720, 352];
/** Smaller shapes, in square units of the map, become dots. */
const smallest = 8;

type Topology = Parameters<typeof feature>[0];
type Shape = ExtendedFeature & { properties: { name: string } };
type Shapes = { type: "FeatureCollection"; features: Shape[] };

/** The countries of an atlas of Natural Earth. */
function readAtlas(file: string): Shape[] {
  const path = new URL(import.meta.resolve(`world-atlas/${file}`));
  const atlas = JSON.parse(readFileSync(path, "utf8")) as Topology;
  const { countries } = atlas.objects;
  return (feature(atlas, countries as NonNullable<typeof countries>) as unknown as Shapes).features;
}

/** The atlas: coarse outlines, and finer ones for the countries that the coarse atlas does not have. */
export function worldJson(): string {
  const coarse = new Map(readAtlas("countries-110m.json").map((shape) => [shape.properties.name, shape]));
  const sphere = { type: "Sphere" } as const;
  const projection = geoEqualEarth().fitExtent(
    [
      [2, 2],
      [width - 2, height - 2],
    ],
    sphere,
  );
  projection.precision(0.5);
  const edge = geoPath(projection).digits(1)(sphere) as string;
  projection.precision(0);
  const path = geoPath(projection).digits(1);
  const rounded = (value: number, digits: number) => Number(value.toFixed(digits));
  const countries = readAtlas("countries-50m.json").map((fine): Atlas["countries"][number] => {
    const { name } = fine.properties;
    const shape = coarse.get(name) ?? fine;
    const [[west, south], [east, north]] = geoBounds(shape);
    const box: [number, number, number, number] = [west, south, east, north];
    const isDot = !coarse.has(name) || path.area(shape) < smallest;
    const [x, y] = path.centroid(shape);
    return {
      name,
      box: box.map((degrees) => rounded(degrees, 3)) as typeof box,
      outline: isDot ? [rounded(x, 1), rounded(y, 1)] : (path(shape) as string),
    };
  });
  // Dots come last, so that large neighbours do not cover them.
  countries.sort((a, b) => Number(typeof a.outline !== "string") - Number(typeof b.outline !== "string"));
  const lines = countries.map((country) => JSON.stringify(country)).join(",\n");
  return `{"width":${width},"height":${height},"sphere":${JSON.stringify(edge)},"countries":[\n${lines}\n]}\n`;
}
