// One text a line, for models that take strings.
import { Refused, say, tensor } from "./play-words.js";

export function text(spec, input) {
  const area = document.getElementById("text-lines");

  function request() {
    const lines = area.value.replace(/\n+$/, "").split("\n");
    if (!area.value.trim()) { area.focus(); throw new Refused(say("noText")); }
    if (spec.rows && lines.length !== spec.rows) throw new Refused(say("textRows", { rows: spec.rows, count: lines.length }));
    return { inputs: [tensor(input, spec.rank === 2 ? [lines.length, 1] : [lines.length], lines)] };
  }

  return { request };
}
