// The newest turn is what one wants to see. `element` and `watch` are given by the page.
watch("value", () => {
  const dialogue = element.closest("#dialogue");
  // What was just put there is laid out first.
  if (dialogue) requestAnimationFrame(() => { dialogue.scrollTop = dialogue.scrollHeight; });
});
