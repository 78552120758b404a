/**
 * The charts of the report: ECharts draws SVG text, without a browser. Colours are the page's CSS variables, so that one
 * chart serves light and dark.
 *
 * @module
 */
import { createRequire } from "node:module";
import type { EChartsOption } from "echarts";
import { asHtml, type Html, html, oneLine } from "./html.ts";

// The bundle, because importing the hundreds of modules of the package takes 20 times as long.
const echarts = createRequire(import.meta.url)("echarts/dist/echarts.min.js") as typeof import("echarts");

/** A value with its name; null if there is no value. */
export interface Point {
  name: string;
  value: number | null;
}

/** The text alternative of a chart, and its size in the units of its view box. */
interface Frame {
  label: string;
  width: number;
  height: number;
}

const ink = "var(--ink)";
const quiet = { color: "var(--muted)" };
const hairline = { lineStyle: { color: "var(--line)" } };
const noTicks = { axisTick: { show: false } };

const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

/** A number in the short form of axes and labels: 50k, 1.5M. */
export const short = (n: number): string => compact.format(n).replace("K", "k");

/** A text cut to the characters of a label. */
const label = (text: string, most: number): string => {
  const characters = [...oneLine(text)];
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : characters.join("");
};

/** Vertical bars from 0, each with its number. */
export function columns(points: Point[], frame: Frame): Html {
  return draw(frame, {
    grid: { left: 2, right: 2, top: 16, bottom: 20 },
    xAxis: {
      ...noTicks,
      type: "category",
      data: points.map((p) => label(p.name, 12)),
      axisLine: hairline,
      axisLabel: { ...quiet, interval: 0, margin: 5 },
    },
    yAxis: { type: "value", show: false, min: 0 },
    series: [
      {
        type: "bar",
        barWidth: "72%",
        data: points.map((p) => p.value),
        itemStyle: { color: "var(--accent)" },
        label: {
          show: true,
          position: "top",
          distance: 3,
          color: ink,
          formatter: ({ dataIndex }) => number(points[dataIndex]?.value, frame.width),
        },
      },
    ],
  });
}

/** Parts of a whole, one horizontal bar for each row; all rows have the same scale. */
export function stacks(
  rows: { name: string; parts: number[] }[],
  { colors, ...frame }: Omit<Frame, "height"> & { colors: string[] },
): Html {
  const max = Math.max(1, ...rows.map((row) => row.parts.reduce((a, b) => a + b, 0)));
  return draw(
    { ...frame, height: rows.length * 28 + 2 },
    {
      grid: { left: 40, right: 2, top: 0, bottom: 0 },
      xAxis: { type: "value", show: false, min: 0, max },
      yAxis: {
        ...noTicks,
        type: "category",
        inverse: true,
        data: rows.map((row) => row.name),
        axisLine: { show: false },
        axisLabel: { color: ink, align: "left", margin: 38, fontSize: 13 },
      },
      series: colors.map((color, i) => ({
        type: "bar",
        stack: "all",
        barWidth: 16,
        data: rows.map((row) => row.parts[i] ?? 0),
        itemStyle: { color },
      })),
    },
  );
}

/** A line of a chart; a `faint` one is for comparison. */
interface Line {
  points: Point[];
  faint?: boolean;
}

/**
 * Points over names on a logarithmic scale, joined by lines. `domain` is the range of values, so that charts can be
 * compared. A value of 0 is left out, because the scale cannot show it.
 */
export function logarithmic(
  lines: Line[],
  { domain: [least, greatest], ...frame }: Frame & { domain: [number, number] },
): Html {
  const close = steps(least, greatest);
  // Room around close values, so that small differences do not look large.
  const ticks = close.length < 4 ? steps(least / 2, greatest * 2) : close;
  const names = lines.find((line) => !line.faint)?.points.map((p) => p.name) ?? [];
  const data = ({ points, faint }: Line) =>
    points.map(({ value }, i) => {
      const isDip = [points[i - 1], points[i + 1]].every(
        (next) => (next?.value ?? Number.POSITIVE_INFINITY) > (value ?? 0),
      );
      const position: "bottom" | "top" = isDip && !faint ? "bottom" : "top";
      return { value: value !== null && value > 0 ? value : "-", label: { position } };
    });
  return draw(frame, {
    grid: { left: 44, right: 12, top: 18, bottom: 22 },
    xAxis: {
      ...noTicks,
      type: "category",
      data: names.map((name) => label(name, 12)),
      axisLine: hairline,
      axisLabel: { ...quiet, interval: 0, margin: 6 },
    },
    yAxis: {
      ...noTicks,
      type: "log",
      min: ticks[0] as number,
      max: ticks.at(-1) as number,
      axisLine: { show: false },
      axisTick: { show: false, customValues: ticks },
      axisLabel: { ...quiet, customValues: ticks, formatter: short },
      splitLine: hairline,
    },
    series: lines.map((line) => ({
      type: "line",
      clip: false,
      z: line.faint ? 1 : 2,
      data: data(line),
      symbol: "circle",
      showSymbol: !line.faint,
      symbolSize: 8,
      lineStyle: { color: line.faint ? "var(--faint)" : "var(--accent)", width: line.faint ? 1.5 : 2 },
      itemStyle: { color: "var(--accent)" },
      label: {
        show: !line.faint,
        distance: 5,
        color: ink,
        textBorderColor: "var(--paper)",
        textBorderWidth: 3,
        formatter: ({ dataIndex }) => {
          const value = line.points[dataIndex]?.value;
          return value === null || value === undefined ? "" : short(value);
        },
      },
    })),
  });
}

/** Round numbers, at most eight, from at or below the least value to at or above the greatest; both are above 0. */
export function steps(least: number, greatest: number): number[] {
  const powers = Array.from({ length: 30 }, (_, i) => 10 ** (i - 2));
  const series = [
    powers.flatMap((power) => [power, 2 * power, 5 * power]),
    powers,
    powers.filter((_, i) => i % 2 === 0),
    powers.filter((_, i) => i % 4 === 0),
  ];
  const covering = series.map((all) => {
    const from = Math.max(
      0,
      all.findLastIndex((step) => step <= least),
    );
    const to = all.findIndex((step, i) => step >= greatest && i > from);
    return all.slice(from, to + 1);
  });
  return covering.find((few) => few.length <= 8) ?? [];
}

/** A number as a label; a narrow chart has no room for long ones. */
const number = (value: number | null | undefined, width: number): string => {
  if (value === null || value === undefined) return "";
  return value > 999 && width < 240 ? short(value) : value.toLocaleString("en-US");
};

function draw({ label, width, height }: Frame, option: EChartsOption): Html {
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, width, height });
  try {
    const series = (option.series as object[]).map((one) => ({ ...one, silent: true, emphasis: { disabled: true } }));
    chart.setOption({ animation: false, textStyle: { fontFamily: "inherit", fontSize: 12 }, ...option, series });
    // Removes what only scripts use; the page has no scripts.
    const drawing = chart
      .renderToSVGString()
      .replace(/^<svg[^>]*>|<style[\s\S]*<\/style>|<\/svg>\s*$| (class|pointer-events|ecmeta_\w+)="[^"]*"/g, "");
    return html`<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">${asHtml(drawing)}</svg>`;
  } finally {
    chart.dispose();
  }
}
