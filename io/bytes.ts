/**
 * Views of buffers that are made once for many reads.
 *
 * @module
 */

export const viewOf = ({ buffer, byteOffset, length }: Buffer): DataView => new DataView(buffer, byteOffset, length);

/** {@link viewOf}, made once for many calls with the same buffer: rows and messages come many to one. */
export function viewer(): (bytes: Buffer) => DataView {
  let last: Buffer = Buffer.alloc(0);
  let view = viewOf(last);
  return (bytes) => {
    if (bytes !== last) view = viewOf(bytes);
    last = bytes;
    return view;
  };
}
