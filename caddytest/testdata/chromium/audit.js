// audit returns what is wrong with the page for its readers, in a window of
// that width, as a list of sentences.
(function audit(width) {
	const problems = [];
	const say = (...words) => problems.push(words.join(" "));
	const name = (e) => e.tagName.toLowerCase() + (e.id && "#" + e.id) + [...e.classList].map((c) => "." + c).join("");
	const seen = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && e.getClientRects().length > 0;

	// The document.
	if (document.compatMode !== "CSS1Compat") say("quirks mode");
	if (!document.documentElement.lang) say("no language");
	if (!document.title.trim()) say("no title");
	if (document.querySelectorAll("h1").length !== 1) say(document.querySelectorAll("h1").length, "h1");
	if (document.querySelectorAll("main").length !== 1) say("not one main");
	if (document.querySelector("script, iframe, object, embed, [style], [onclick], [onsubmit], [onload]")) say("script, frame or inline style");
	if (document.styleSheets.length !== 1 || getComputedStyle(document.body).marginTop !== "0px") say("the style was not applied");
	let level = 0;
	for (const h of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
		const next = Number(h.tagName[1]);
		if (next > level + 1) say("heading level", level, "is followed by", next);
		if (!h.textContent.trim()) say("empty heading");
		level = next;
	}
	const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
	if (new Set(ids).size !== ids.length) say("an id is there twice:", ids);
	for (const e of document.querySelectorAll("[aria-describedby], [aria-labelledby], label[for]"))
		for (const id of (e.getAttribute("aria-describedby") ?? e.getAttribute("aria-labelledby") ?? e.htmlFor).split(" "))
			if (!document.getElementById(id)) say(name(e), "names the id", id, "which is not there");

	// The layout.
	const scrolled = document.scrollingElement.scrollWidth;
	if (scrolled > width || innerWidth > width) say("scrolls sideways:", scrolled, "of", width, "px");
	for (const e of document.querySelectorAll("body *")) {
		if (!seen(e)) continue;
		const r = e.getBoundingClientRect();
		if (r.left < -0.5 || r.right > width + 0.5) say(name(e), "leaves the window:", r.left, "to", r.right);
		const style = getComputedStyle(e);
		if (e.scrollWidth > e.clientWidth + 1 && style.display !== "inline" && e.tagName !== "INPUT") say(name(e), "is wider inside than outside");
		if (parseFloat(style.fontSize) < 12) say(name(e), "has text of", style.fontSize);
	}

	// The controls.
	for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
		if (![...(e.labels ?? [])].some((l) => seen(l) && l.textContent.trim())) say(name(e), "has no label");
		if (!e.autocomplete) say(name(e), "has no autocomplete");
	}
	for (const e of document.querySelectorAll("button, a[href]"))
		if (!(e.getAttribute("aria-label") ?? e.textContent).trim()) say(name(e), "has no name");
	for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) say(name(e), "has no alt");
	for (const e of document.querySelectorAll("svg")) if (e.getAttribute("aria-hidden") !== "true") say("a picture is read out");
	for (const e of document.querySelectorAll("button, input:not([type=hidden])")) {
		const r = e.getBoundingClientRect();
		if (r.height < 40 || r.width < 40) say(name(e), "is small:", r.width, "×", r.height);
	}

	// Contrast, by WCAG 2.2: 4.5 for text, 3 for the edges of controls.
	const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgba = (color) => {
		canvas.clearRect(0, 0, 1, 1);
		canvas.fillStyle = color;
		canvas.fillRect(0, 0, 1, 1);
		const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
		return [r, g, b, a / 255];
	};
	const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
	const background = (e) => {
		if (!e) return rgba("Canvas");
		const color = rgba(getComputedStyle(e).backgroundColor);
		return color[3] === 1 ? color : over(color, background(e.parentElement));
	};
	const luminance = (c) => {
		const [r, g, b] = c.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const contrast = (a, b) => {
		const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
		return (light + 0.05) / (dark + 0.05);
	};
	const readable = (e, text) => {
		const style = getComputedStyle(e), below = background(e);
		const ratio = contrast(over(rgba(style.color), below), below);
		if (ratio < 4.5) say(name(e), JSON.stringify(text.slice(0, 30)), "has a contrast of", ratio.toFixed(2));
		texts++;
	};
	let texts = 0;
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
		if (text && seen(e)) readable(e, text);
	}
	if (texts < 3) say("only", texts, "texts");
	for (const e of document.querySelectorAll("button, input:not([type=hidden])")) {
		if (e.tagName === "INPUT") readable(e, "what is typed");
		const around = background(e.parentElement);
		const edge = Math.max(contrast(over(rgba(getComputedStyle(e).borderTopColor), around), around), contrast(background(e), around));
		if (edge < 3) say("the edge of", name(e), "has a contrast of", edge.toFixed(2));
	}
	return problems;
})
