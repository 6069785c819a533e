// Charts: deliveries a second by outcome, with their latency; and the number of events in the outbox.

const SPAN = 300; // seconds
const STEP = 2; // seconds in a column

export const GROUPS = {
  accepted: "good",
  duplicate: "calm",
  unsupported: "calm",
  quarantined: "odd",
  reconciled: "odd",
};

export function group(outcome) {
  return GROUPS[outcome] ?? "bad";
}

const ORDER = ["good", "calm", "odd", "bad"];
const NAMES = { good: "accepted", calm: "duplicate, unsupported", odd: "quarantined, reconciled", bad: "refused, failed" };

// The current colours of the style sheet, light or dark, as a canvas needs them.
const probe = document.body.appendChild(document.createElement("span"));
probe.hidden = true;

function colours() {
  return (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
}

// Scales a canvas to the pixels of the screen. Returns its context and its size in CSS pixels.
function sharp(canvas) {
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

function percentile(sorted, percent) {
  return sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)];
}

const milliseconds = (micros) => (micros < 10_000 ? (micros / 1000).toFixed(1) : Math.round(micros / 1000)) + " ms";

// Draws `rows`, the oldest first, and returns the texts of the legend.
export function draw(canvas, rows, now) {
  const columns = SPAN / STEP;
  const end = Math.floor(now / 1000 / STEP) * STEP + STEP;
  const begin = end - SPAN;
  const counts = Array.from({ length: columns }, () => ({ good: 0, calm: 0, odd: 0, bad: 0, all: 0, took: [] }));
  const total = { good: 0, calm: 0, odd: 0, bad: 0 };
  const took = [];
  for (let index = rows.length - 1; index >= 0; index -= 1) {
    const row = rows[index];
    const column = Math.floor((row.at / 1000 - begin) / STEP);
    if (column < -5) break;
    if (column < 0 || column >= columns) continue;
    const kind = group(row.outcome);
    counts[column][kind] += 1;
    counts[column].all += 1;
    total[kind] += 1;
    // Nobody waited for what reconciliation stored.
    if (row.outcome === "reconciled") continue;
    counts[column].took.push(row.micros);
    took.push(row.micros);
  }
  const { context, width, height } = sharp(canvas);
  const colour = colours();
  const most = Math.max(4, ...counts.map((count) => count.all));
  const slowest = Math.max(20_000, ...counts.map((count) => Math.max(0, ...count.took)));
  const bars = Math.round(height * 0.62);
  const each = width / columns;
  context.fillStyle = colour("line");
  context.fillRect(0, bars, width, 1);
  counts.forEach((count, column) => {
    let top = bars;
    for (const kind of ORDER) {
      const tall = (count[kind] / most) * (bars - 4);
      if (tall === 0) continue;
      context.fillStyle = colour(kind);
      context.fillRect(column * each, top - Math.max(tall, 1), Math.max(each - 1, 1), Math.max(tall, 1));
      top -= Math.max(tall, 1);
    }
    if (count.took.length) {
      // The median and the maximum of each column, on a scale that shows both 2 ms and 2 s.
      const place = (micros) => height - 3 - (Math.log1p(micros / 1000) / Math.log1p(slowest / 1000)) * (height - bars - 8);
      count.took.sort((one, other) => one - other);
      context.fillStyle = colour("faint");
      context.fillRect(column * each, place(count.took.at(-1)), Math.max(each - 1, 1), 1.5);
      context.fillStyle = colour("text");
      context.fillRect(column * each, place(percentile(count.took, 50)), Math.max(each - 1, 1), 1.5);
    }
  });
  took.sort((one, other) => one - other);
  return {
    parts: ORDER.filter((kind) => total[kind] > 0).map((kind) => ({ kind, text: `${total[kind]} ${NAMES[kind]}` })),
    rate: `${(took.length / SPAN).toFixed(1)}/s`,
    took: took.length ? `median ${milliseconds(percentile(took, 50))}, p99 ${milliseconds(percentile(took, 99))}` : "",
  };
}

// Draws the number of events in the outbox as steps. `points` are [time, count].
export function drawLevel(canvas, points, now) {
  const { context, width, height } = sharp(canvas);
  const colour = colours();
  const span = 120_000;
  const most = Math.max(5, ...points.map(([, count]) => count));
  const x = (at) => width - ((now - at) / span) * width;
  const y = (count) => height - 2 - (count / most) * (height - 6);
  context.beginPath();
  let level = 0;
  context.moveTo(0, y(0));
  for (const [at, count] of points) {
    context.lineTo(Math.max(0, x(at)), y(level));
    context.lineTo(Math.max(0, x(at)), y(count));
    level = count;
  }
  context.lineTo(width, y(level));
  context.strokeStyle = colour("odd");
  context.lineWidth = 1.5;
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(0, height);
  context.globalAlpha = 0.15;
  context.fillStyle = colour("odd");
  context.fill();
  context.globalAlpha = 1;
}
