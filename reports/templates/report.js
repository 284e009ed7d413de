"use strict";
for (const box of document.querySelectorAll(".compare")) {
  const [left, right, range] = [".left", ".right", "input"].map((q) => box.querySelector(q));
  const [stage, over, under, line] = [".stage", ".over", ".under", ".line"].map((q) => box.querySelector(q));
  const move = () => {
    over.style.clipPath = `inset(0 ${100 - range.value}% 0 0)`;
    line.style.left = `${range.value}%`;
    range.setAttribute("aria-valuetext", `${range.value} % left picture`);
  };
  const pick = () => {
    over.src = document.getElementById(left.value).src;
    under.src = document.getElementById(right.value).src;
  };
  const follow = (event) => {
    const edges = stage.getBoundingClientRect();
    range.value = (100 * (event.clientX - edges.left)) / edges.width;
    move();
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
  });
  left.addEventListener("change", pick);
  right.addEventListener("change", pick);
  range.addEventListener("input", move);
  move();
}
const unfold = () => document.querySelectorAll("details").forEach((one) => (one.open = true));
window.addEventListener("beforeprint", unfold);
