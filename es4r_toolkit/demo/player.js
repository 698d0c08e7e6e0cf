// Plays the pieces of a reply one behind the other without a gap, as they come.
// `element` and `watch` are given by the page; `props.value` is {reply, chunks}: data addresses of WAV files.
let context = null;
let reply = 0;
let hushed = 0;
let taken = 0;
let end = 0;
let waiting = Promise.resolve();
const playing = new Set();

function wake() {
  // Browsers let sound begin only after somebody touched the page.
  context = context || new AudioContext();
  if (context.state === "suspended") context.resume();
}

function show() {
  element.dataset.state = playing.size ? "speaking" : "silent";
}

function silence() {
  for (const source of playing) source.stop();
  playing.clear();
  end = 0;
  show();
}

function bytesOf(address) {
  const letters = atob(address.slice(address.indexOf(",") + 1));
  return Uint8Array.from(letters, (letter) => letter.charCodeAt(0)).buffer;
}

async function play(address, of) {
  const sound = await context.decodeAudioData(bytesOf(address));
  if (of !== reply) return;
  const source = context.createBufferSource();
  source.buffer = sound;
  source.connect(context.destination);
  // A moment ahead, so that the first samples are not late.
  const start = Math.max(end, context.currentTime + 0.03);
  source.start(start);
  end = start + sound.duration;
  playing.add(source);
  source.onended = () => { playing.delete(source); show(); };
  show();
}

watch("value", () => {
  const value = props.value || { reply: 0, chunks: [] };
  // Pieces that were on their way when it was silenced are not played.
  if (value.reply === hushed) return;
  if (value.reply !== reply) {
    reply = value.reply;
    taken = 0;
    silence();
  }
  wake();
  for (; taken < value.chunks.length; taken += 1) {
    const address = value.chunks[taken];
    const of = reply;
    waiting = waiting.then(() => play(address, of)).catch((fault) => console.error("a piece of the reply cannot be played", fault));
  }
});

for (const touch of ["pointerdown", "keydown"]) document.addEventListener(touch, wake);
document.addEventListener("click", (event) => {
  // Whoever speaks again is not talked over.
  if (event.target.closest("#interrupt, #start-over, #send, .record-button, .example")) {
    hushed = reply;
    reply = -1;
    silence();
  }
});
show();
