// Zone × zone: a table whose cells are coloured by their number. The numbers are the map.
import { bytes, exact, percent } from "../lib/format";
import { type HeatMap as Heat } from "../lib/series";

export function HeatMap({ heat }: { heat: Heat }) {
  const name = (zone: string) => zone || "not known";
  return (
    <div class="table-frame" role="region" aria-label="Bytes by zone" tabIndex={0}>
      <table class="heat">
        <caption class="only-heard">Bytes from the zone of the row to the zone of the column</caption>
        <thead>
          <tr>
            <th scope="col">from ↓ to →</th>
            {heat.zones.map((zone) => (
              <th scope="col" key={zone} class="num">
                {name(zone)}
              </th>
            ))}
            <th scope="col" class="num">
              All
            </th>
          </tr>
        </thead>
        <tbody>
          {heat.zones.map((from, row) => {
            const cells = heat.cells[row] ?? [];
            return (
              <tr key={from}>
                <th scope="row">{name(from)}</th>
                {cells.map((value, column) => (
                  <td
                    key={heat.zones[column]}
                    class={row === column ? "num own" : "num"}
                    style={{ "--heat": heat.largest > 0 ? (value / heat.largest).toFixed(3) : "0" }}
                    title={`${exact(value)} bytes, ${percent(value, heat.total)}`}
                  >
                    {bytes(value)}
                  </td>
                ))}
                <td class="num sum">{bytes(cells.reduce((sum, value) => sum + value, 0))}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
