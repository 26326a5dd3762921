// Keys: arrows, space, Page, Home, End; S speaker's window, O overview, B black, F full screen. Prints all slides.
const slides = [...document.querySelectorAll(".slide")], root = document.documentElement;
const wanted = () => Math.min(Math.max((parseInt(location.hash.slice(1)) || 1) - 1, 0), slides.length - 1);
let now = wanted(), speaker = null, started = null;

function lay() {
  const overview = root.classList.contains("overview");
  const scale = overview ? innerWidth / 4.4 / 1280 : Math.min(innerWidth / 1280, innerHeight / 720);
  slides.forEach((slide, i) => {
    const x = overview ? (0.08 + 1.07 * (i % 4)) * 1280 * scale : (innerWidth - 1280 * scale) / 2;
    const y = overview ? (0.08 + 1.07 * Math.floor(i / 4)) * 720 * scale : (innerHeight - 720 * scale) / 2;
    slide.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    slide.classList.toggle("now", i === now);
  });
}

function show(i) {
  now = Math.min(Math.max(i, 0), slides.length - 1);
  history.replaceState(null, "", `#${now + 1}`);
  lay();
  tell();
}

function tell() {
  if (!speaker || speaker.closed) return;
  const next = slides[now + 1], page = speaker.document;
  page.getElementById("place").textContent = `${now + 1} of ${slides.length}`;
  page.getElementById("notes").innerHTML = slides[now].querySelector(".notes").innerHTML;
  page.getElementById("next").textContent = next ? next.querySelector("h1, h2").textContent : "the end";
}

function openSpeaker() {
  speaker = window.open("", "speaker", "width=720,height=640");
  if (!speaker) return;
  started ??= Date.now();
  speaker.document.body.innerHTML = `<style>body { font: 20px/1.45 sans-serif; margin: 1em; } h3 { margin: 0; }</style>
    <h3><span id="place"></span> · <span id="clock"></span></h3><div id="notes"></div><p>Next: <b id="next"></b></p>`;
  speaker.document.title = "Speaker's notes";
  speaker.document.onkeydown = press;
  tell();
}

setInterval(() => {
  if (!speaker || speaker.closed) return;
  const seconds = Math.floor((Date.now() - started) / 1000);
  speaker.document.getElementById("clock").textContent =
    `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}, 500);

const keys = {
  ArrowRight: () => show(now + 1), ArrowDown: () => show(now + 1), PageDown: () => show(now + 1),
  " ": () => show(now + 1), ArrowLeft: () => show(now - 1), ArrowUp: () => show(now - 1),
  PageUp: () => show(now - 1), Home: () => show(0), End: () => show(slides.length - 1), s: openSpeaker,
  o: () => { root.classList.toggle("overview"); lay(); }, b: () => root.classList.toggle("black"),
  f: () => document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen(),
};

function press(event) {
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
}

function stretch() {
  const probe = document.createElement("div");
  probe.innerHTML = "<math><mrow><mo>{</mo><mspace height='4em'/></mrow></math>";
  document.body.append(probe);
  const bare = probe.querySelector("mo").getBoundingClientRect().height < 30;
  probe.remove();
  if (!bare) return;
  root.classList.add("unstretched");
  for (const sign of document.querySelectorAll("mo[stretchy=true], mo[fence=true], mo[minsize]")) {
    const own = sign.getBoundingClientRect().height, all = sign.parentElement.getBoundingClientRect().height;
    if (all > 1.25 * own) sign.style.cssText = `display: inline-block; transform: scaleY(${all / own})`;
  }
}

slides.forEach((slide, i) => slide.addEventListener("click", () => {
  if (root.classList.contains("overview")) { root.classList.remove("overview"); show(i); }
}));
document.addEventListener("keydown", press);
addEventListener("resize", lay);
addEventListener("hashchange", () => show(wanted()));
stretch();  // before the slides are laid one upon the other and hidden
root.classList.add("shown");
show(now);
