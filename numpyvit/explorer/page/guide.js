"use strict";
/* Leads through the tour's stops: the box at the bottom, and what a stop is about in the free part of the window. */

function showTour(at) {
  if (at >= tour.stops.length) at = -1;
  tour.at = at;
  photo.follow = !tour.stops[at]?.block;
  $("tour").hidden = at < 0;
  if (at < 0) return $("tour-button")?.focus();
  const stop = tour.stops[at];
  if (stop.mode) photo.mode = stop.mode;
  photo.rolled = 0;
  photo.head = -1;
  photo.asClass = false;
  if (stop.block) photo.block = stop.block;
  if (stop.query) photo.query = stop.query;
  app.select(stop.target.number, stop.cell ? stop.cell(stop.target) : null);
  $("tour").replaceChildren(
    h("h2", {}, stop.title),
    h("p", {}, stop.text()),
    h(
      "footer",
      {},
      h("span", {}, `${at + 1} of ${tour.stops.length}`),
      h("button", {onclick: () => showTour(-1)}, "end"),
      h("button", {disabled: at === 0, onclick: () => showTour(at - 1)}, "back"),
      h("button", {id: "tour-next", onclick: () => showTour(at + 1)}, at + 1 < tour.stops.length ? "next" : "done"),
    ),
  );
  bringIntoView(document.querySelector(stop.show ?? (stop.mode ? "#photo" : stop.cell ? "#cell" : ".code-line.lit")));
  $("tour-next").focus({preventScroll: true});
  $("live").textContent = `${stop.title}. ${stop.text()}`;
}

/* The text of the stop, after something has changed. */
function drawTour() {
  const text = $("tour").querySelector("p");
  if (tour.at >= 0 && text) text.textContent = tour.stops[tour.at].text();
}

/* Scroll an element to the middle of what is free between the strip and the tour's box, or to its top. */
function bringIntoView(element) {
  if (!element) return;
  element.scrollIntoView({block: "center"}); // in every box around it that scrolls
  const strip = $("strip"),
    top = getComputedStyle(strip).position === "sticky" ? strip.offsetHeight : 0,
    room = $("tour").getBoundingClientRect().top - top,
    box = element.getBoundingClientRect();
  scrollBy(0, box.top - top - Math.max(8, (room - box.height) / 2));
}
