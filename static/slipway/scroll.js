// Wide tables scroll sideways; those without anything to focus get a tab stop, so that keys reach them.
function mark() {
  for (const box of document.querySelectorAll(".scroll"))
    if (box.scrollWidth > box.clientWidth && !box.querySelector("a, button, input, select")) box.tabIndex = 0;
}

mark();
addEventListener("resize", mark);
document.addEventListener("htmx:after:swap", mark);
