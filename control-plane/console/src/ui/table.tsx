// Tables: a caption for who cannot see where they are, row headers, and scrolling by keyboard where they are wide.
import type { ComponentChildren } from "preact";

export interface Column<T> {
  head: string;
  cell: (row: T) => ComponentChildren;
  /** Numbers are set right, in figures of one width. */
  number?: boolean;
  /** May be broken anywhere, as digests and globs must be. */
  long?: boolean;
  /** Stays on one line. */
  short?: boolean;
}

export interface TableProps<T> {
  caption: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  rowKey: (row: T) => string | number;
  /** A last row: sums. */
  foot?: readonly ComponentChildren[];
  showCaption?: boolean;
}

export function Table<T>({ caption, columns, rows, rowKey, foot, showCaption }: TableProps<T>) {
  const kind = (column: Column<T>) => (column.number ? "num" : column.long ? "long" : column.short ? "short" : undefined);
  return (
    <div class="table-frame" role="region" aria-label={caption} tabIndex={0}>
      <table>
        <caption class={showCaption ? undefined : "only-heard"}>{caption}</caption>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.head} scope="col" class={kind(column)}>
                {column.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={rowKey(row)}>
              {columns.map((column, index) =>
                index === 0 ? (
                  <th key={column.head} scope="row" class={kind(column)}>
                    {column.cell(row)}
                  </th>
                ) : (
                  <td key={column.head} class={kind(column)}>
                    {column.cell(row)}
                  </td>
                ),
              )}
            </tr>
          ))}
        </tbody>
        {foot && (
          <tfoot>
            <tr>
              {foot.map((cell, index) =>
                index === 0 ? (
                  <th key={index} scope="row">
                    {cell}
                  </th>
                ) : (
                  <td key={index} class={columns[index] && kind(columns[index])}>
                    {cell}
                  </td>
                ),
              )}
            </tr>
          </tfoot>
        )}
      </table>
    </div>
  );
}

/** Which part of a long list is shown, and the way to the others. */
export function Pager({ page, perPage, total, go }: { page: number; perPage: number; total: number; go: (page: number) => void }) {
  const pages = Math.max(1, Math.ceil(total / perPage));
  if (pages === 1) return null;
  const first = (page - 1) * perPage + 1;
  return (
    <nav class="pager" aria-label="Pages of the list">
      <button type="button" class="button" disabled={page <= 1} onClick={() => go(page - 1)}>
        Previous
      </button>
      <span>
        {first}–{Math.min(total, page * perPage)} of {total}
      </span>
      <button type="button" class="button" disabled={page >= pages} onClick={() => go(page + 1)}>
        Next
      </button>
    </nav>
  );
}
