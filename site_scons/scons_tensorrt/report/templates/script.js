(function () {
  "use strict";
  document.documentElement.classList.add("js");
  var key = function (row, at) {
    var value = row.children[at].getAttribute("data-v");
    return value === null ? row.children[at].textContent : value;
  };
  var compare = function (a, b) {
    var x = parseFloat(a), y = parseFloat(b);
    if (a !== "" && b !== "" && !isNaN(a) && !isNaN(b)) { return x - y; }
    return a.localeCompare(b);
  };
  document.querySelectorAll("table.sortable").forEach(function (table) {
    var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
    heads.forEach(function (head, at) {
      var button = document.createElement("button");
      button.type = "button";
      while (head.firstChild) { button.appendChild(head.firstChild); }
      head.setAttribute("data-title", button.textContent);
      head.appendChild(button);
      button.addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (each) { each.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        var body = table.tBodies[0];
        var rows = Array.prototype.map.call(body.rows, function (row, index) {
          return { row: row, key: key(row, at), index: index };
        });
        rows.sort(function (a, b) {
          if (a.key === "" || b.key === "") {
            return (a.key === "" ? 1 : 0) - (b.key === "" ? 1 : 0) || a.index - b.index;
          }
          return (down ? -1 : 1) * compare(a.key, b.key) || a.index - b.index;
        });
        rows.forEach(function (each) { body.appendChild(each.row); });
      });
    });
  });
  var filter = document.getElementById("filter");
  var shownCount = document.getElementById("filtered");
  var rows = document.querySelectorAll("#engines tbody tr");
  var narrow = function () {
    var words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    var shown = 0;
    rows.forEach(function (row) {
      var text = row.textContent.toLowerCase();
      var fits = words.every(function (word) { return text.indexOf(word) >= 0; });
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    shownCount.textContent = words.length ? shown + " of " + rows.length + " shown" : "";
  };
  if (filter) { filter.addEventListener("input", narrow); }
  var all = document.querySelectorAll("details");
  var toggle = document.getElementById("open-all");
  var opened = function (state) {
    all.forEach(function (each) { each.open = state; });
    if (toggle) { toggle.textContent = state ? "Close all details" : "Open all details"; }
  };
  if (toggle) {
    toggle.addEventListener("click", function () {
      opened(!Array.prototype.every.call(all, function (each) { return each.open; }));
    });
  }
  var reveal = function () {
    var target = document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
  };
  window.addEventListener("hashchange", reveal);
  reveal();
  if (all.length <= 40) { window.addEventListener("beforeprint", function () { opened(true); }); }
})();
