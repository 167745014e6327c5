// Text of the page that stands out too little from what is behind it, and fields whose edge does (WCAG 2.2, AA).
() => {
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const channels = (css, under) => {
        context.clearRect(0, 0, 1, 1);
        for (const one of [under, css]) if (one) { context.fillStyle = one; context.fillRect(0, 0, 1, 1); }
        return [...context.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (element) => {
        const layers = [];
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (channels(colour)[3]) layers.push(colour);
            if (channels(colour)[3] === 255) break;
        }
        return layers.reverse().reduce((under, colour) => `rgb(${channels(colour, under).slice(0, 3).join()})`, "white");
    };
    const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const poor = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let seen = 0;
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const box = element.getBoundingClientRect();
        if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || box.width < 2) continue;
        if (element.closest(":disabled, .check:has(:disabled), .skip")) continue;
        const style = getComputedStyle(element);
        const under = ground(element);
        const colour = channels(element instanceof SVGElement ? style.fill : style.color, under);
        const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
        const found = ratio(colour, channels(under));
        seen += 1;
        if (found < (large ? 3 : 4.5)) poor.push(`${element.className || element.tagName}: ${found.toFixed(2)}`);
    }
    for (const field of document.querySelectorAll("select, input[type=number], input[type=text], .segmented span")) {
        if (!field.checkVisibility()) continue;
        const found = ratio(channels(getComputedStyle(field).borderTopColor), channels(ground(field.parentElement)));
        if (found < 3) poor.push(`edge of ${field.id || field.textContent}: ${found.toFixed(2)}`);
    }
    return { seen, poor };
}
