// Of a form with options for each method only those of the chosen method are seen; without this all are there, folded.
const method = document.querySelector("select[name=optimizer]");

function show() {
  for (const options of document.querySelectorAll("details[data-options]")) {
    options.hidden = options.dataset.options !== method.value;
    options.open = !options.hidden;
  }
}

method.addEventListener("change", show);
show();
