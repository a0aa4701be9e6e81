// Streams one file to the API with progress; the server answers with the version's page or with a problem.
const form = document.getElementById("upload");
const $ = (id) => document.getElementById(id);
let file = null, request = null;

function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let index = 0;
  while (bytes >= 1000 && index < 3) { bytes /= 1000; index += 1; }
  return `${bytes.toPrecision(3)} ${units[index]}`;
}

function fail(text) {
  $("failure").textContent = text;
  $("failure").hidden = !text;
  $("progress").hidden = true;
  $("send").disabled = false;
  $("stop").hidden = true;
}

function choose(chosen) {
  file = chosen;
  fail("");
  $("chosen").textContent = `${file.name} · ${size(file.size)}`;
  const name = form.elements.model;
  if (!name.value) name.value = file.name.replace(/\.(onnx|pmml)$/i, "");
}

function problem() {
  try { return JSON.parse(request.responseText).detail; } catch { return form.dataset.broken; }
}

function send() {
  const query = new URLSearchParams({ model: form.elements.model.value, project: form.elements.project.value, task: form.elements.task.value, file_name: file.name });
  request = new XMLHttpRequest();
  request.open("POST", `${form.dataset.url}?${query}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
  request.upload.addEventListener("progress", (event) => {
    const share = event.total ? (100 * event.loaded) / event.total : 0;
    form.querySelector("progress").value = share;
    $("progress-text").textContent = share < 100 ? `${share.toFixed(0)} % · ${size(event.loaded)} / ${size(event.total)}` : form.dataset.checking;
  });
  request.addEventListener("load", () => {
    if (request.status === 201) location.assign(JSON.parse(request.responseText).url);
    else fail(problem());
  });
  request.addEventListener("error", () => fail(form.dataset.broken));
  request.addEventListener("abort", () => fail(""));
  $("progress").hidden = $("stop").hidden = false;
  $("send").disabled = true;
  request.send(file);
}

if (form) {
  const drop = $("drop");
  $("file").addEventListener("change", (event) => event.target.files[0] && choose(event.target.files[0]));
  // Chosen before this module had arrived, or kept by the browser on the way back.
  if ($("file").files[0]) choose($("file").files[0]);
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
  drop.addEventListener("drop", (event) => event.dataTransfer.files[0] && choose(event.dataTransfer.files[0]));
  $("stop").addEventListener("click", () => request?.abort());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!file || !/\.(onnx|pmml)$/i.test(file.name)) return fail(form.dataset.notOnnx);
    if (file.size > Number(form.dataset.limit) * 1024 * 1024) return fail(form.dataset.tooLarge);
    send();
  });
}
