// The map of embeddings: what is under the pointer, and zoom. The page is complete without it.
(() => {
  const box = document.getElementById("map");
  if (!box) return;
  const svg = box.querySelector("svg"), tip = box.querySelector(".tip"), zoom = box.querySelector(".zoom");
  const canvas = tip.querySelector("canvas"), words = tip.querySelector("b"), file = tip.querySelector("small");
  const sheet = box.querySelector("img"), side = svg.viewBox.baseVal.width;
  const names = [...svg.querySelectorAll("text")].map(element => ({ element, x: +element.getAttribute("x"), y: +element.getAttribute("y") }));
  const points = [...svg.querySelectorAll("use")].map(element => {
    const title = element.querySelector("title");
    const [text, path] = title.textContent.split("\n");
    title.remove();
    return { element, text, path, x: +element.getAttribute("x"), y: +element.getAttribute("y"), tile: +element.dataset.tile };
  });
  let scale = 1, left = 0, top = 0, marked = null, dragged = null;

  const place = () => {
    for (const each of [...points, ...names]) {
      each.element.setAttribute("x", ((each.x - left) * scale).toFixed(1));
      each.element.setAttribute("y", ((each.y - top) * scale).toFixed(1));
    }
    box.classList.toggle("moved", scale > 1);
  };
  const view = (x, y, wanted) => {
    const next = Math.min(40, Math.max(1, wanted)), limit = side - side / next;
    left = Math.min(limit, Math.max(0, left + x / scale - x / next));
    top = Math.min(limit, Math.max(0, top + y / scale - y / next));
    scale = next;
    place();
  };
  const spot = event => {
    const frame = svg.getBoundingClientRect();
    return [(event.clientX - frame.left) * side / frame.width, (event.clientY - frame.top) * side / frame.height];
  };
  const leave = () => {
    tip.hidden = true;
    if (marked) marked.element.classList.remove("on");
    marked = null;
  };
  const show = event => {
    const [x, y] = spot(event), frame = svg.getBoundingClientRect();
    let best = null, nearest = (14 * side / frame.width) ** 2;
    for (const point of points) {
      const distance = ((point.x - left) * scale - x) ** 2 + ((point.y - top) * scale - y) ** 2;
      if (distance < nearest) [best, nearest] = [point, distance];
    }
    if (best === marked) return;
    leave();
    if (!best) return;
    marked = best;
    best.element.classList.add("on");
    words.textContent = best.text;
    file.textContent = best.path;
    canvas.hidden = !sheet;
    if (sheet) {
      const tile = +sheet.dataset.tile, columns = +sheet.dataset.columns, pen = canvas.getContext("2d");
      canvas.width = canvas.height = tile;
      pen.drawImage(sheet, best.tile % columns * tile, Math.floor(best.tile / columns) * tile, tile, tile, 0, 0, tile, tile);
    }
    tip.hidden = false;
    const across = (best.x - left) * scale / side * frame.width, down = (best.y - top) * scale / side * frame.height;
    tip.style.left = `${across > frame.width / 2 ? Math.max(0, across - tip.offsetWidth - 14) : Math.min(frame.width - tip.offsetWidth, across + 14)}px`;
    tip.style.top = `${Math.max(0, Math.min(frame.height - tip.offsetHeight, down - tip.offsetHeight / 2))}px`;
  };
  svg.addEventListener("pointerdown", event => {
    if (scale > 1) {
      dragged = spot(event);
      svg.setPointerCapture(event.pointerId);
    }
    show(event);
  });
  svg.addEventListener("pointermove", event => {
    if (!dragged) return show(event);
    const [x, y] = spot(event), limit = side - side / scale;
    left = Math.min(limit, Math.max(0, left - (x - dragged[0]) / scale));
    top = Math.min(limit, Math.max(0, top - (y - dragged[1]) / scale));
    dragged = [x, y];
    leave();
    place();
  });
  for (const kind of ["pointerup", "pointercancel"]) svg.addEventListener(kind, () => { dragged = null; });
  svg.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") leave(); });
  svg.addEventListener("dblclick", event => { leave(); view(...spot(event), scale * 2); });
  svg.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;  // else the page could not be scrolled past the map
    event.preventDefault();
    leave();
    view(...spot(event), scale * 2 ** (-event.deltaY / 200));
  }, { passive: false });
  zoom.addEventListener("click", event => {
    const factor = +event.target.dataset.factor;
    leave();
    if (!Number.isNaN(factor)) view(side / 2, side / 2, factor ? scale * factor : 1);
  });
  zoom.hidden = false;
})();
