// Draws a state of the cluster. Every text is set as text: addresses and zones come from other processes.

const LEVEL_SIGNS = { ok: "✓", working: "⇄", degraded: "▽", trouble: "✕" };

// How a shard looks in the grid, from good to bad. Moving is ok with copies on their way.
const SHARD_STATES = [
  ["ok", "✓", "ok"],
  ["moving", "⇄", "ok, copies move"],
  ["degraded", "▽", "degraded: fewer copies than wanted"],
  ["read-only", "▼", "read-only: too few copies for writes"],
  ["no primary", "?", "no primary"],
  ["down", "✕", "down"],
];

// Rows of the table of shards; a page with thousands is of use to nobody.
const MOST_ROWS = 200;

const byId = (id) => document.getElementById(id);
const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
const drawn = new Map();

/** Draws all parts; those that have not changed are left alone, so that nobody loses a selection or the focus. */
export function draw(view) {
  part("state", [view.level, view.headline, view.notes], () => drawState(view));
  const about = [view.cluster_id, view.version, view.term, view.shards.length];
  part("about", about, () => drawAbout(view));
  part("shards", [view.shards], () => drawShards(view));
  part("nodes", [view.nodes], () => drawNodes(view));
  part("members", [view.members], () => drawMembers(view));
}

function part(name, facts, work) {
  const text = JSON.stringify(facts);
  if (drawn.get(name) !== text) {
    work();
    drawn.set(name, text);
  }
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, value);
  }
  return made;
}

function drawState(view) {
  const sign = LEVEL_SIGNS[view.level] ?? "?";
  byId("state").dataset.level = view.level;
  byId("sign").textContent = sign;
  byId("said").textContent = view.headline;
  byId("notes").replaceChildren(...view.notes.map((note) => element("li", note)));
  byId("notes").hidden = view.notes.length === 0;
  document.title = `${sign} ${view.headline} – Tricord`;
}

function drawAbout(view) {
  const parts = [
    `${view.cluster_id}`,
    `${number(view.replicas)} ${view.replicas === 1 ? "copy" : "copies"} of each shard`,
    `a write needs ${number(view.min_insync)}`,
    `map version ${number(view.version)}`,
  ];
  byId("about").textContent = parts.join(" · ");
}

/** A table whose rows become cards where the page is narrow. Cells are texts or elements. */
function table(caption, heads, rows) {
  const made = element("table", "", { role: "table" });
  made.append(element("caption", caption));
  const head = element("tr", "", { role: "row" });
  head.append(...heads.map((text) => element("th", text, { scope: "col", role: "columnheader" })));
  const top = element("thead", "", { role: "rowgroup" });
  top.append(head);
  const body = element("tbody", "", { role: "rowgroup" });
  for (const row of rows) {
    const line = element("tr", "", { role: "row" });
    row.forEach((cell, at) => {
      const attributes = { role: at === 0 ? "rowheader" : "cell", "data-head": heads[at] };
      const made = at === 0 ? element("th", "", { ...attributes, scope: "row" }) : element("td", "", attributes);
      const content = [cell].flat();
      made.append(...content.map((one) => (one instanceof Node ? one : element("span", String(one)))));
      line.append(made);
    });
    body.append(line);
  }
  made.append(top, body);
  return made;
}

function put(id, caption, heads, rows) {
  byId(id).replaceChildren(...(rows.length === 0 ? [] : [table(caption, heads, rows)]));
}

function tagged(kind, text) {
  return element("span", text, { class: `tag ${kind}` });
}

function lookOf(shard) {
  const moves = shard.todo.length > 0;
  const name = shard.state === "ok" && moves ? "moving" : shard.state;
  return SHARD_STATES.find(([state]) => state === name) ?? [name, "?", name];
}

const kindOf = (state) => state.replaceAll(" ", "-");

function drawShards(view) {
  byId("shards").hidden = false;
  const counts = new Map();
  const cells = view.shards.map((shard) => {
    const [state, sign] = lookOf(shard);
    counts.set(state, (counts.get(state) ?? 0) + 1);
    const holders = `shard ${shard.shard}: ${state}, primary ${shard.primary || "none"}, in sync on ${shard.in_sync.join(", ") || "none"}`;
    const cell = element("li", "", { class: kindOf(state), title: [holders, ...shard.todo].join("\n") });
    cell.append(
      element("b", String(shard.shard)),
      element("span", sign, { "aria-hidden": "true" }),
      element("span", state, { class: "unseen" }),
    );
    return cell;
  });
  byId("grid").replaceChildren(...cells);
  byId("shard-count").textContent = number(view.shards.length);
  byId("legend").replaceChildren(
    ...SHARD_STATES.filter(([state]) => counts.has(state)).map(([state, sign, meaning]) => {
      const entry = element("li", "");
      entry.append(tagged(kindOf(state), `${sign} ${number(counts.get(state))}`), element("span", ` ${meaning}`));
      return entry;
    }),
  );
  drawUnwell(view.shards.filter((shard) => lookOf(shard)[0] !== "ok"));
}

function drawUnwell(unwell) {
  byId("all-well").hidden = unwell.length > 0;
  byId("unwell").hidden = unwell.length === 0;
  byId("unwell-count").textContent = number(unwell.length);
  const left = unwell.length - MOST_ROWS;
  byId("unwell-more").hidden = left <= 0;
  byId("unwell-more").textContent = left > 0 ? `and ${number(left)} more` : "";
  // The worst first, then those where something happens.
  const badness = (shard) => SHARD_STATES.findIndex(([state]) => state === lookOf(shard)[0]);
  const begun = (shard) => Number(shard.joining.length > 0);
  const sorted = [...unwell].sort((a, b) => badness(b) - badness(a) || begun(b) - begun(a) || a.shard - b.shard);
  const rows = sorted.slice(0, MOST_ROWS).map((shard) => {
    const [state, sign] = lookOf(shard);
    return [
      shard.shard,
      tagged(kindOf(state), `${sign} ${state}`),
      shard.primary === 0 ? "none" : shard.primary,
      shard.in_sync.join(", ") || "none",
      shard.joining.join(", ") || "–",
      shard.todo.map((text) => element("div", text)),
      number(shard.series),
    ];
  });
  const heads = ["Shard", "State", "Primary", "In sync", "Joining", "Still to happen", "Series"];
  put("unwell-shards", "Shards that lack something, or whose copies move; primary and copies by node", heads, rows);
}

function drawNodes(view) {
  const stores = view.nodes.filter((node) => node.stores);
  byId("nodes").hidden = false;
  byId("node-count").textContent = number(stores.length);
  const rows = stores.map((node) => [
    node.id,
    nodeState(node),
    number(node.primaries),
    number(node.copies),
    coming(node),
    number(node.leaving),
    number(node.series),
    node.disk_used_bytes === null ? "–" : bytes(node.disk_used_bytes),
    node.disk_free_bytes === null ? "–" : bytes(node.disk_free_bytes),
    node.zone || "–",
    node.rpc,
    node.version,
  ]);
  const heads = ["Node", "State", "Leads", "In sync", "Coming", "Going", "Series", "Stored", "Free", "Zone", "Address", "Version"];
  put("data-nodes", "Copies that each node leads, holds in sync, is getting and gives up", heads, rows);
}

function nodeState(node) {
  const content = [];
  if (node.alive) {
    const isEmpty = node.drain?.left === 0;
    const draining = isEmpty ? tagged("ok", "✓ drained") : tagged("moving", "⇄ draining");
    content.push(node.draining ? draining : tagged("ok", "✓ alive"));
  } else {
    content.push(tagged("down", "✕ no answer"));
    if (node.heartbeat_age_ms !== null) {
      content.push(element("small", `for ${age(node.heartbeat_age_ms)}`));
    }
  }
  if (node.drain !== null) {
    const { left, of } = node.drain;
    if (left > 0) {
      content.push(element("progress", "", { max: of, value: of - left, "aria-label": `copies that have left node ${node.id}` }));
    }
    content.push(element("small", left === 0 ? "holds nothing" : `${number(left)} of ${number(of)} copies left`));
  }
  return content;
}

function coming(node) {
  const all = node.joining + node.waiting;
  return all === node.joining ? number(all) : `${number(all)}\u00a0(${number(node.joining)}\u00a0begun)`;
}

function drawMembers(view) {
  byId("group").hidden = false;
  byId("member-count").textContent = number(view.members.length);
  const rows = view.members.map((member) => [member.id, memberState(member), member.voter ? "votes" : "learns", member.rpc]);
  put("members", "Metadata members, as their leader sees them", ["Member", "State", "Part", "Address"], rows);
}

function memberState(member) {
  if (member.leader) {
    return tagged("ok", "★ leads");
  }
  if (member.answers === null) {
    return "not known";
  }
  if (member.answers) {
    return tagged("ok", "✓ answers");
  }
  const since = member.heard_age_ms === null ? "" : ` for ${age(member.heard_age_ms)}`;
  return [tagged("down", "✕ no answer"), element("small", since.trim())];
}

function age(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) {
    return `${seconds} s`;
  }
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit + 1 < units.length) {
    value /= 1024;
    unit += 1;
  }
  // A number stays on the line of its unit.
  return unit === 0 ? `${count}\u00a0B` : `${value.toFixed(1)}\u00a0${units[unit]}`;
}
