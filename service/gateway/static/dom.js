// Making elements. Text always goes in as text: nothing on this page is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An element with attributes (null ones are left out, functions are listeners) and children (texts or nodes). */
export function make(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for a part of a drawing. */
export function draw(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets custom properties, through which the style sheets get their numbers. */
export function styled(element, properties) {
  for (const [name, value] of Object.entries(properties)) element.style.setProperty(name, value);
  return element;
}

/** Milliseconds for people. */
export function ms(value) {
  if (value < 10) return `${value.toFixed(value < 1 ? 2 : 1)} ms`;
  return value < 1000 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** A share of one as per cent. */
export function percent(share) {
  const value = share * 100;
  if (value > 0 && value < 0.05) return "< 0.1 %";
  return `${value >= 99.95 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
}

/** "1 object", "3 objects". */
export const count = (number, word, words = `${word}s`) => `${number} ${number === 1 ? word : words}`;

// Light enough for dark text on them, far enough apart for masks over a photo.
const COLOURS = [
  "#ff9a76", "#5ad1e6", "#ffd454", "#c2a5ff", "#84d18b", "#ff9ec4", "#74b9ff",
  "#dbe86a", "#ffb454", "#4fcdb8", "#eab0ff", "#b3d18c", "#9db8ff", "#f2a2a2",
];

/** The colour of a class, the same wherever it appears. */
export const colour = (index) => COLOURS[(index + COLOURS.length - 1) % COLOURS.length];

/** The same as red, green and blue, 0 to 255. */
export function rgb(index) {
  const value = Number.parseInt(colour(index).slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
