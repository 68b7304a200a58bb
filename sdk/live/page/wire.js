// A binary message of the live page: head, joints, boxes, JPEG. `sdk/live/wire.py` says how it is laid out.

export function parsedFrame(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const joints = new Float32Array(buffer, 4 + length, head.persons * head.joints * 3);
  const boxes = new Float32Array(buffer, 4 + length + joints.byteLength, head.persons * 5);
  const jpeg = new Uint8Array(buffer, 4 + length + joints.byteLength + boxes.byteLength);
  const persons = [];
  for (let row = 0; row < head.persons; row++) {
    persons.push({
      id: head.ids ? head.ids[row] : row,
      joints: joints.subarray(row * head.joints * 3, (row + 1) * head.joints * 3), // x, y, score
      box: boxes.subarray(row * 5, row * 5 + 5), // x1, y1, x2, y2, score
    });
  }
  return { ...head, people: persons, jpeg };
}
