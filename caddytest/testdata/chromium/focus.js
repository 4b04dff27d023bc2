// focus tells which control has the focus, and whether people can see it.
(function focus() {
	const e = document.activeElement;
	if (!e || e === document.body) return { name: "", visible: false };
	const style = getComputedStyle(e), r = e.getBoundingClientRect();
	return {
		name: e.name || e.value || e.textContent.trim(),
		text: e.textContent.trim(),
		visible: e.matches(":focus-visible") && style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2 &&
			r.top >= 0 && r.bottom <= innerHeight,
	};
})
