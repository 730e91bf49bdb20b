/* What experts do: heat maps of a run and layer by label, and texts whose tokens are coloured by expert. */
"use strict";
(() => {
  const GROUNDS = 8;  // colours of experts in page.css
  const { element } = page;

  function options(select, names) {
    const chosen = select.selectedIndex;
    select.replaceChildren(...names.map((text, value) => element("option", { text, value })));
    select.selectedIndex = Math.max(0, Math.min(chosen, names.length - 1));
  }

  const LONGEST = 24;  // letters of a domain's name over a column
  const short = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text);

  const classOf = (expert) => `e${expert % GROUNDS} u${Math.floor(expert / GROUNDS) % GROUNDS}`;
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

  /* The step of colour of a value, from -4 to 4. */
  const ofLift = (value) => Math.max(-4, Math.min(4, Math.round(2 * Math.log2(Math.max(value, 1e-9)))));
  function ofChange(largest) {
    return (value) => (largest ? Math.sign(value) * Math.round(4 * Math.sqrt(Math.abs(value) / largest)) : 0);
  }

  const KINDS = {
    lift: {
      title: (label) => `Lift of experts by ${label}`,
      form: (value) => `${value.toFixed(2)}×`, step: () => ofLift, empty: "no token",
      key: [["h-4", "¼×"], ["h-2", "½×"], ["h0", "1×"], ["h2", "2×"], ["h4", "4×"]],
      note: "Share of the domain's tokens that the expert takes, over its share of all. Grey without a colour: within"
        + " the band of what comes out where labels mean nothing; one cell in twenty leaves it by chance.",
    },
    removed: {
      title: (label) => `Loss by ${label} when the expert is removed`,
      form: signed, step: (largest) => ofChange(largest), empty: "not measured",
      key: [["h-4", "falls"], ["h0", "0"], ["h4", "rises"]],
      note: "Change of the domain's loss, nats per token. Without a colour: within what removing random experts of equal"
        + " load does."
        + " Star: the domain needs the expert, more than others do (p adjusted).",
    },
  };

  function heat(kind, label, matrix) {
    const look = KINDS[kind];
    const columns = matrix.domains.length;
    const largest = Math.max(0, ...matrix.value.map((value) => Math.abs(value ?? 0)));
    const step = look.step(largest);
    const order = matrix.experts.map((_, place) => place);
    const head = element("tr", {}, element("td"), ...matrix.domains.map((text) => element("th", { scope: "col", text: short(text), title: text })));
    const rows = order.map((place) => element("tr", {},
      element("th", { scope: "row", text: `expert ${matrix.experts[place]}` }),
      ...matrix.domains.map((_, column) => {
        const at = place * columns + column;
        const value = matrix.value[at];
        if (value === null) return element("td", { kind: "none", text: "–", title: look.empty });
        const within = matrix.within[at] === "1";
        const star = matrix.needed?.[at] === "1" ? " ★" : "";
        const said = `${look.form(value)}${star}`;
        return element("td", { kind: within ? "h0 within" : `h${step(value)}`, text: said });
      })));
    const title = look.title(label);
    const table = element("table", {}, element("caption", { kind: "unseen", text: title }), element("thead", {}, head), element("tbody", {}, ...rows));
    const scroll = element("div", { kind: "scroll", tabindex: "0", role: "region", "aria-label": title }, table);
    const key = element("p", { kind: "key" }, ...look.key.map(([name, text]) => element("i", { kind: name, text })));
    return element("div", { kind: "heat" }, element("h4", { text: title }), scroll, key, element("p", { kind: "note", text: look.note }));
  }

  function Inside(root) {
    const data = page.data.inside[root.dataset.inside];
    const select = Object.fromEntries([...root.querySelectorAll("[data-choose]")].map((one) => [one.dataset.choose, one]));
    const text = root.querySelector(".text");
    const detail = root.querySelector(".token");
    const legend = root.querySelector(".experts");
    let alone = null;  // the expert whose tokens alone are coloured
    let focus = 0;  // token that the arrow keys stand at

    const run = () => data.runs[select.run.selectedIndex];
    const layer = () => run().layers[select.layer.selectedIndex];
    const label = () => Object.keys(layer().maps)[select.label.selectedIndex];

    function chooseRun() {
      options(select.layer, run().layers.map((one) => `layer ${one.layer}`));
      chooseLayer();
    }

    function chooseLayer() {
      options(select.label, Object.keys(layer().maps));
      alone = null;
      showMaps();
      showText();
    }

    function showMaps() {
      const maps = layer().maps[label()];
      root.querySelector(".maps").replaceChildren(...Object.keys(KINDS).filter((kind) => maps[kind]).map((kind) => heat(kind, label(), maps[kind])));
    }

    /* The picks of a token of the text that is shown: [expert, percent], the largest first. */
    function picksOf(token) {
      const { most, expert, weight } = layer().picks;
      const first = (firstToken() + token) * most;
      return Array.from({ length: most }, (_, n) => [expert[first + n], weight[first + n]]).filter(([one]) => one >= 0);
    }

    const document_ = () => data.documents[select.document.selectedIndex];
    const firstToken = () => data.documents.slice(0, select.document.selectedIndex).reduce((sum, one) => sum + one.pieces.length, 0);

    function showText() {
      root.querySelector(".browser").hidden = !(layer().picks && data.documents.length);
      if (!layer().picks || !data.documents.length) return;
      showLegend();
      const { pieces, cut } = document_();
      const numbers = select.numbers.checked;
      const spans = pieces.map((piece, token) => {
        const [best] = picksOf(token);
        const kind = !best ? "none" : alone !== null && !picksOf(token).some(([one]) => one === alone) ? "other" : classOf(alone ?? best[0]);
        const span = element("span", { kind, text: piece === "" ? "▯" : piece.replaceAll("\n", "⏎\n"), tabindex: "-1", dir: "auto", "data-token": token });
        if (numbers && best) span.append(element("sub", { text: best[0] }));
        return span;
      });
      text.replaceChildren(...spans, ...(cut ? [element("span", { kind: "none", text: " …" })] : []));
      focus = Math.min(focus, pieces.length - 1);
    }

    function showLegend() {
      const many = Math.min(layer().experts, 64);
      legend.replaceChildren(...Array.from({ length: many }, (_, expert) => {
        const button = element("button", { kind: classOf(expert), type: "button", text: `expert ${expert}`, "aria-pressed": String(alone === expert) });
        button.addEventListener("click", () => {
          alone = alone === expert ? null : expert;
          showText();
          legend.children[expert].focus();
        });
        return button;
      }));
    }

    /* Where a domain stands in a map, and what the expert's lift is there. */
    function lift(name, domain, expert) {
      const map = layer().maps[name]?.lift;
      const row = map ? map.experts.indexOf(expert) : -1;
      const column = map ? map.domains.indexOf(domain) : -1;
      if (row < 0 || column < 0) return null;
      const at = row * map.domains.length + column;
      return map.value[at] === null ? null : `${map.value[at].toFixed(2)}×${map.within[at] === "1" ? " (as by chance)" : ""}`;
    }

    function labelsOf(token) {
      const { labels, tokenLabels } = document_();
      const codes = [...Object.entries(labels), ...Object.entries(tokenLabels).map(([name, all]) => [name, all[token]])];
      return codes.filter(([, code]) => code >= 0).map(([name, code]) => [name, data.labels[name][code]]);
    }

    function tell(token) {
      const picks = picksOf(token);
      const piece = document_().pieces[token];
      const rows = [["token", String(token)], ...picks.map(([expert, weight]) => [`expert ${expert}`, `${weight}%`])];
      if (!picks.length) rows.push(["expert", "none"]);
      for (const [name, domain] of labelsOf(token)) {
        rows.push([name, domain]);
        for (const [expert] of picks) {
          const value = lift(name, domain, expert);
          if (value) rows.push([`lift of expert ${expert}`, value]);
        }
      }
      detail.replaceChildren(element("p", {}, element("b", { text: piece === "" ? "▯" : piece, dir: "auto" })), page.list(rows));
      if (piece === "") detail.append(element("p", { kind: "note", text: "the first bytes of a character that the next token ends" }));
    }

    const tokenOf = (target) => target.closest?.("[data-token]");
    text.addEventListener("pointerover", (event) => {
      const span = tokenOf(event.target);
      if (span) tell(Number(span.dataset.token));
    });
    text.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const inside = tokenOf(document.activeElement);
      focus = Math.max(0, Math.min(document_().pieces.length - 1, inside ? Number(inside.dataset.token) + step : focus));
      text.querySelector(`[data-token="${focus}"]`).focus();
      tell(focus);
    });

    select.run.addEventListener("change", chooseRun);
    select.layer.addEventListener("change", chooseLayer);
    select.label.addEventListener("change", showMaps);
    select.document.addEventListener("change", () => { focus = 0; showText(); });
    select.numbers.addEventListener("change", showText);
    options(select.run, data.runs.map((one) => `${one.name}, seed ${one.seed}`));
    options(select.document, data.documents.map((one, n) =>
      `${n + 1}: ${Object.entries(one.labels).filter(([, code]) => code >= 0).map(([name, code]) => data.labels[name][code]).join(", ") || "no label"}`));
    chooseRun();
  }

  document.querySelectorAll("[data-inside]").forEach(Inside);
})();
