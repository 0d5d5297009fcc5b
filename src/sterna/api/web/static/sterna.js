// What pages do beside htmx. Everything works without it, but for the chart and what comes live.
"use strict";

// A form is sent once: a second click is for who thinks that the first one was lost.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "yes";
  if (event.submitter) event.submitter.setAttribute("aria-busy", "true");
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  for (const button of document.querySelectorAll("button[aria-busy]")) button.removeAttribute("aria-busy");
});

// Is what is shown live?
function say(text) {
  const place = document.getElementById("connection");
  if (place && place.textContent !== text) place.textContent = text;
}
document.addEventListener("htmx:sseOpen", () => say("live"));
document.addEventListener("htmx:sseError", () => say("the connection is lost, trying again"));
document.addEventListener("htmx:sseClose", (event) => {
  if (event.detail.type === "message") say("it has ended");
});

// The chart of a copy: what is left, the rate, and the dirty rate.
const MOST_POINTS = 1200;
const MIB = 1048576;

function chartOf(place) {
  const times = [], left = [], rate = [], dirty = [];
  const colour = (name) => getComputedStyle(place).getPropertyValue(name).trim();
  const axis = { stroke: colour("--text"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  const width = () => Math.max(260, place.clientWidth);
  let plot = null;

  function draw() {
    if (plot) return plot.setData([times, left, rate, dirty]);
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", place.dataset.label);
    plot = new uPlot({
      width: width(), height: 240,
      legend: { live: false },
      scales: { x: { time: false } },
      axes: [
        { ...axis, label: "s of the copy" },
        { ...axis, label: "MiB", scale: "MiB" },
        { ...axis, label: "MiB/s", scale: "MiB/s", side: 1, grid: { show: false } },
      ],
      series: [
        { label: "s" },
        { label: "left, MiB", scale: "MiB", stroke: colour("--link"), width: 2 },
        { label: "sent, MiB/s", scale: "MiB/s", stroke: colour("--good"), width: 2 },
        { label: "dirtied, MiB/s", scale: "MiB/s", stroke: colour("--bad"), width: 2, dash: [6, 4] },
      ],
    }, [times, left, rate, dirty], place);
    window.addEventListener("resize", () => plot.setSize({ width: width(), height: 240 }));
  }

  function add([at, ...values]) {
    if (times.length && at <= times[times.length - 1]) return false;
    times.push(at);
    [left, rate, dirty].forEach((line, place) => line.push(values[place] == null ? null : values[place] / MIB));
    if (times.length > MOST_POINTS) {  // every second one of the older half is left out
      for (const line of [times, left, rate, dirty]) {
        const half = Math.floor(line.length / 2);
        line.splice(0, half, ...line.slice(0, half).filter((_, place) => place % 2 === 0));
      }
    }
    return true;
  }

  return (points) => {
    if (points.map(add).some((is_new) => is_new)) draw();
  };
}

document.addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("chart");
  if (!place || typeof uPlot === "undefined") return;
  const show = chartOf(place);
  show(JSON.parse(place.dataset.points));
  document.addEventListener("htmx:sseMessage", () => {
    const now = document.getElementById("point");
    if (now) show([JSON.parse(now.dataset.point)]);
  });
});
