// The playground's words, its refusals, and V2 tensors.
const words = document.getElementById("play-words");

/** The text named `key`, with {names} filled in. */
export function say(key, values = {}) {
  return (words?.dataset[key] ?? key).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
}

/** A request that cannot be made: what is wrong, in sentences. */
export class Refused extends Error {
  constructor(...texts) { super(texts.join(" ")); this.texts = texts; }
}

export const tensor = (input, shape, data) => ({ name: input.name, shape, datatype: input.datatype, data });

const whole = /^(U?)INT(\d+)$/;

/** Whether a number fits a V2 datatype. */
export function fits(value, datatype) {
  if (typeof value !== "number" || !Number.isFinite(value)) return false;
  const kind = datatype.match(whole);
  if (!kind) return true;
  if (!Number.isInteger(value)) return false;
  const bits = Number(kind[2]), top = 2 ** (kind[1] ? bits : bits - 1);
  return value < top && value >= (kind[1] ? 0 : -top);
}

/** A cell's text as a value; refuses with the cell's name. */
export function valueOf(text, datatype, where) {
  if (datatype === "BYTES") return text;
  const value = text.trim().toLowerCase();
  if (value === "") throw new Refused(say("emptyCell", where));
  if (datatype === "BOOL") {
    if (["true", "1"].includes(value)) return true;
    if (["false", "0"].includes(value)) return false;
    throw new Refused(say("notBool", { ...where, value: text }));
  }
  const number = Number(value);
  if (!Number.isFinite(number)) throw new Refused(say("notNumber", { ...where, value: text }));
  const exact = !whole.test(datatype) || Number.isSafeInteger(number);
  if (!exact || !fits(number, datatype)) throw new Refused(say("notWhole", { ...where, value: text, datatype }));
  return number;
}
