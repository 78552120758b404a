/**
 * Views of buffers, reused for many reads.
 *
 * @module
 */

/** A DataView of a buffer. */
export const viewOf = ({ buffer, byteOffset, length }: Buffer): DataView => new DataView(buffer, byteOffset, length);

/** {@link viewOf} that is reused while calls pass the same buffer, which has many rows or messages. */
export function viewer(): (bytes: Buffer) => DataView {
  let last: Buffer = Buffer.alloc(0);
  let view = viewOf(last);
  return (bytes) => {
    if (bytes !== last) view = viewOf(bytes);
    last = bytes;
    return view;
  };
}
