// Looks through a V2 request before it is sent, and names everything that does not fit the model.
import { fits, say } from "./play-words.js";

const free = (dim) => dim == null || dim < 1;
const list = (dims) => `[${dims.map((dim) => (free(dim) ? say("any") : dim)).join(", ")}]`;
const shapely = (shape) => Array.isArray(shape) && shape.every((dim) => Number.isInteger(dim) && dim >= 0);

function flat(data) {
  const found = [];
  const walk = (part) => { for (const one of part) Array.isArray(one) ? walk(one) : found.push(one); };
  walk(data);
  return found;
}

function suits(value, datatype) {
  if (datatype === "BYTES") return typeof value === "string";
  if (datatype === "BOOL") return typeof value === "boolean" || value === 0 || value === 1;
  return fits(value, datatype);
}

function values(input, wrong) {
  const { name, shape, datatype, data } = input;
  if (input.parameters?.binary_data_size !== undefined) return;
  if (!Array.isArray(data)) { wrong.push(say("noData", { name })); return; }
  const found = flat(data), wanted = shape.reduce((product, dim) => product * dim, 1);
  if (found.length !== wanted) wrong.push(say("count", { name, shape: list(shape), wanted, given: found.length }));
  const place = found.findIndex((value) => !suits(value, datatype));
  if (place >= 0) wrong.push(say("value", { name, place: place + 1, value: JSON.stringify(found[place]), datatype }));
}

function one(input, place, known, wrong) {
  if (typeof input?.name !== "string") { wrong.push(say("unnamed", { place: place + 1 })); return; }
  const { name } = input, wanted = known.get(name);
  if (!wanted) {
    if (known.size) wrong.push(say("unknown", { name, names: [...known.keys()].slice(0, 6).join(", ") }));
    return;
  }
  if (input.datatype !== wanted.datatype) wrong.push(say("datatype", { name, given: input.datatype, wanted: wanted.datatype }));
  if (!shapely(input.shape)) { wrong.push(say("badShape", { name })); return; }
  const same = input.shape.length === wanted.shape.length && wanted.shape.every((dim, at) => free(dim) || dim === input.shape[at]);
  if (!same) wrong.push(say("shape", { name, given: list(input.shape), wanted: list(wanted.shape) }));
  values(input, wrong);
}

/** {wrong: [sentences], hopeless}: hopeless is what no server can read. */
export function check(text, inputs) {
  let request;
  try { request = JSON.parse(text); } catch (error) { return { wrong: [say("notJson", { why: error.message })], hopeless: true }; }
  if (!Array.isArray(request?.inputs)) return { wrong: [say("noInputs")], hopeless: false };
  const known = new Map(inputs.map((input) => [input.name, input])), wrong = [];
  request.inputs.forEach((input, place) => one(input, place, known, wrong));
  const given = new Set(request.inputs.map((input) => input?.name));
  for (const name of known.keys()) if (!given.has(name)) wrong.push(say("missing", { name }));
  return { wrong, hopeless: false };
}
