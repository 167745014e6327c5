// Runs before the first paint: the theme chosen last, so that the page never flashes in the other one.
"use strict";

(() => {
  const THEMES = ["system", "light", "dark"];

  const stored = () => {
    try {
      const name = localStorage.getItem("squint-theme");
      return THEMES.includes(name) ? name : "system";
    } catch {
      return "system"; // a browser that keeps nothing
    }
  };

  const apply = (name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
  };

  apply(stored());

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = (name) => {
      button.dataset.shown = name;
      button.setAttribute("aria-label", `Theme: ${name}. Change it.`);
      button.title = `Theme: ${name}`;
    };
    let current = stored();
    tell(current);
    button.addEventListener("click", () => {
      current = THEMES[(THEMES.indexOf(current) + 1) % THEMES.length];
      try {
        localStorage.setItem("squint-theme", current);
      } catch {
        // It holds for this visit.
      }
      apply(current);
      tell(current);
      document.dispatchEvent(new Event("themechange"));
    });
  });
})();
