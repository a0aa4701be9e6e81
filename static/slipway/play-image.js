// An image becomes the model's tensor in the browser: resized on a canvas, channels laid out, values scaled.
import { Refused, say, tensor } from "./play-words.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"], LARGEST = 20e6;
const MEAN = [0.485, 0.456, 0.406], DEVIATION = [0.229, 0.224, 0.225];
const GREY = [0.299, 0.587, 0.114]; // ITU-R BT.601
const $ = (id) => document.getElementById(id);

/** Where to draw a picture of w × h on a canvas. */
function placed(fit, picture, canvas) {
  if (fit === "stretch") return [0, 0, canvas.width, canvas.height];
  const across = canvas.width / picture.width, down = canvas.height / picture.height;
  const scale = fit === "crop" ? Math.max(across, down) : Math.min(across, down);
  const width = picture.width * scale, height = picture.height * scale;
  return [(canvas.width - width) / 2, (canvas.height - height) / 2, width, height];
}

function scaled(value, channel, scale) {
  if (scale === "byte") return Math.round(value);
  const share = scale === "imagenet" ? (value / 255 - MEAN[channel]) / DEVIATION[channel] : value / 255;
  return Math.round(share * 1e4) / 1e4;
}

export function image(spec, input) {
  const canvas = $("image-canvas"), context = canvas.getContext("2d", { willReadFrequently: true });
  const layouts = $("image-layout"), scales = $("image-scale"), sides = document.querySelectorAll("#panel-image .side");
  const digital = /INT/.test(input.datatype);
  let picture = null, name = "";

  const layout = () => spec.layouts.find((one) => one.name === layouts.value);

  function sizes() {
    const { height, width } = layout();
    const found = [height ?? Number($("image-height").value), width ?? Number($("image-width").value)];
    if (!found.every((side) => Number.isInteger(side) && side >= 4 && side <= 2048)) throw new Refused(say("badSide"));
    return found;
  }

  function shape() {
    const [height, width] = sizes(), by = { N: 1, C: layout().channels, H: height, W: width };
    return [...layout().name].map((letter) => by[letter]);
  }

  /** Draws the picture as the model gets it; grey where there is one channel. */
  function draw() {
    if (!picture) return;
    const [height, width] = sizes();
    canvas.width = width;
    canvas.height = height;
    context.fillStyle = "#fff"; // what is see-through gets paper behind it
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, ...placed($("image-fit").value, picture, canvas));
    if (layout().channels === 1) {
      const seen = context.getImageData(0, 0, width, height);
      for (let at = 0; at < seen.data.length; at += 4)
        seen.data[at] = seen.data[at + 1] = seen.data[at + 2] = GREY.reduce((sum, share, channel) => sum + share * seen.data[at + channel], 0);
      context.putImageData(seen, 0, 0);
    }
    canvas.hidden = false;
    const from = `${picture.width} × ${picture.height}`;
    $("image-says").textContent = say("imageSays", { name, from, datatype: input.datatype, shape: `[${shape().join(", ")}]`, layout: layout().name });
  }

  function redraw() {
    $("image-says").classList.remove("wrong");
    try { draw(); } catch (refusal) { complain(refusal.message); }
  }

  function complain(text) {
    $("image-says").textContent = text;
    $("image-says").classList.add("wrong");
  }

  async function choose(file) {
    if (!file) return;
    if (!TYPES.includes(file.type)) return complain(say("notImage", file));
    if (file.size > LARGEST) return complain(say("largeImage", file));
    try { picture = await createImageBitmap(file); } catch { return complain(say("badImage", file)); }
    name = file.name;
    redraw();
    canvas.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function lay() {
    const { channels, height, width } = layout();
    [height, width].forEach((side, at) => { sides[at].hidden = side !== null; });
    for (const option of scales.options) option.disabled = digital ? option.value !== "byte" : option.value === "imagenet" && channels === 1;
    if (scales.selectedOptions[0]?.disabled) scales.value = digital ? "byte" : "unit";
    redraw();
  }

  function request() {
    if (!picture) throw new Refused(say("noImage"));
    draw();
    const { channels, name: order } = layout(), [height, width] = sizes(), scale = scales.value;
    const seen = context.getImageData(0, 0, width, height).data, count = height * width;
    const data = new Array(count * channels), last = order.endsWith("C");
    for (let at = 0; at < count; at += 1)
      for (let channel = 0; channel < channels; channel += 1)
        data[last ? at * channels + channel : channel * count + at] = scaled(seen[4 * at + channel], channel, scale);
    return { inputs: [tensor(input, shape(), data)] };
  }

  layouts.replaceChildren(...spec.layouts.map((one) => new Option(one.name, one.name)));
  $("image-height").value = $("image-width").value = spec.side;
  const drop = $("image-drop");
  $("image-file").addEventListener("change", (event) => choose(event.target.files[0]));
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.remove("over"); });
  drop.addEventListener("drop", (event) => choose(event.dataTransfer.files[0]));
  document.addEventListener("paste", (event) => { if (!$("panel-image").hidden) choose(event.clipboardData.files[0]); });
  layouts.addEventListener("change", lay);
  for (const id of ["image-scale", "image-fit", "image-height", "image-width"]) $(id).addEventListener("change", redraw);
  lay();
  return { request };
}
