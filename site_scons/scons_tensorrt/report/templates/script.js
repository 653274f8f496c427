(function () {
  "use strict";
  document.documentElement.classList.add("js");
  var PER = 100;  // as view.PAGE
  var array = function (found) { return Array.prototype.slice.call(found); };
  var named = function (kind, name) { return document.querySelector("[data-" + kind + "=" + name + "]"); };
  var signs = { amp: "&", lt: "<", gt: ">", quot: "\"", nbsp: "\u00a0", "#34": "\"", "#39": "'" };
  // The text of HTML; much faster than to parse it, for 10,000 rows.
  var plain = function (html) {
    return html.replace(/<[^>]*>/g, "").replace(/&(amp|lt|gt|quot|nbsp|#34|#39);/g, function (all, sign) {
      return signs[sign];
    });
  };
  var compare = function (a, b) {
    var x = parseFloat(a), y = parseFloat(b);
    if (a !== "" && b !== "" && !isNaN(a) && !isNaN(b)) { return x - y; }
    return a.localeCompare(b);
  };
  // The indexes of the keys in their order; what has none is last.
  var ordered = function (keys, down) {
    return keys.map(function (key, index) { return index; }).sort(function (i, j) {
      var a = keys[i], b = keys[j];
      if (a === "" || b === "") { return (a === "" ? 1 : 0) - (b === "" ? 1 : 0) || i - j; }
      return (down ? -1 : 1) * compare(a, b) || i - j;
    });
  };
  // The rows of a table that is whole in the page.
  var shortList = function (table) {
    var body = table.tBodies[0], rows = array(body.rows);
    return {
      count: rows.length,
      text: function (index) { return rows[index].textContent; },
      key: function (index, at) {
        var value = rows[index].children[at].getAttribute("data-v");
        return value === null ? rows[index].children[at].textContent : value;
      },
      sort: function (order) { order.forEach(function (index) { body.appendChild(rows[index]); }); },
      narrow: function (fits) { rows.forEach(function (row, index) { row.hidden = !fits[index]; }); },
      reveal: function () { return false; }
    };
  };
  // The rows and details of a long one: text, of which a page at a time is in the document.
  var longList = function (table) {
    var name = table.getAttribute("data-list"), body = table.tBodies[0];
    var below = document.querySelector("div[data-details=" + name + "]");
    var tools = named("pages", name), buttons = tools.querySelectorAll("button");
    var count = Number(table.getAttribute("data-count"));
    var known = {}, order = null, fits = null, page = 0;
    var texts = function (kind, first) {
      if (!known[kind]) {
        var rest = document.querySelector("noscript[data-" + kind + "=" + name + "]").textContent.split("\n");
        known[kind] = array(first).map(function (each) { return each.outerHTML; }).concat(
          rest.filter(function (line) { return (/^<(tr|details) /).test(line); }));
      }
      return known[kind];
    };
    // Called first while the first page is in the document.
    var rows = function () { return texts("rows", body.rows); };
    var details = function () { return texts("details", below.children); };
    var chosen = function () {
      if (!order && !fits) { return null; }
      var all = order || rows().map(function (row, index) { return index; });
      return fits ? all.filter(function (index) { return fits[index]; }) : all;
    };
    var say = function (total) {
      var from = page * PER + 1, to = Math.min(from + PER - 1, total);
      tools.querySelector("span").textContent = total ? from + "–" + to + " of " + total : "none";
      buttons[0].disabled = page === 0;
      buttons[1].disabled = to >= total;
    };
    var show = function () {
      var some = chosen(), total = some ? some.length : count, shown = [], index;
      rows();
      details();
      for (index = page * PER; index < Math.min(page * PER + PER, total); index += 1) {
        shown.push(some ? some[index] : index);
      }
      body.innerHTML = shown.map(function (each) { return rows()[each]; }).join("\n");
      below.innerHTML = shown.map(function (each) { return details()[each]; }).join("\n");
      say(total);
      label();
    };
    var turn = function (by) { page += by; show(); };
    buttons[0].addEventListener("click", function () { turn(-1); });
    buttons[1].addEventListener("click", function () { turn(1); });
    say(count);
    return {
      count: count,
      text: function (index) { return plain(rows()[index]); },
      key: function (index, at) {
        var cell = rows()[index].split(/<t[hd] /)[at + 1];
        var value = (/^[^>]*? data-v="([^"]*)"/).exec(cell);
        return plain(value ? value[1] : "<b " + cell);
      },
      sort: function (now) { order = now; page = 0; show(); },
      narrow: function (now, all) { fits = all ? null : now; page = 0; show(); },
      // Show the page with the details of this ID; false if the list has none.
      reveal: function (id) {
        var start = "<details id=\"" + id + "\"", some, at;
        var index = details().findIndex(function (each) { return each.indexOf(start) === 0; });
        if (index < 0) { return false; }
        if (fits && !fits[index]) {
          fits = null;
          filter.value = document.getElementById("filtered").textContent = "";
        }
        some = chosen();
        at = some ? some.indexOf(index) : index;
        page = Math.floor(at / PER);
        show();
        return true;
      }
    };
  };
  var all = function () { return array(document.querySelectorAll("details")); };
  var filter = document.getElementById("filter"), toggle = document.getElementById("open-all");
  var areOpen = function () { return all().every(function (each) { return each.open; }); };
  var label = function () {
    if (toggle) { toggle.textContent = areOpen() ? "Close all details" : "Open all details"; }
  };
  var lists = [];
  document.querySelectorAll("table.sortable").forEach(function (table) {
    var list = table.hasAttribute("data-list") ? longList(table) : shortList(table);
    list.table = table;
    lists.push(list);
    var heads = array(table.tHead.rows[0].cells);
    heads.forEach(function (head, at) {
      var button = document.createElement("button");
      button.type = "button";
      while (head.firstChild) { button.appendChild(head.firstChild); }
      head.setAttribute("data-title", button.textContent);
      head.appendChild(button);
      button.addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending", keys = [], index;
        heads.forEach(function (each) { each.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        for (index = 0; index < list.count; index += 1) { keys.push(list.key(index, at)); }
        list.sort(ordered(keys, down));
      });
    });
  });
  if (filter) {
    var engines = lists.find(function (each) { return filter.closest("section").contains(each.table); });
    var lowered = null;
    filter.addEventListener("input", function () {
      var words = filter.value.toLowerCase().split(/\s+/).filter(Boolean), shown = 0, index;
      if (!lowered) {
        lowered = [];
        for (index = 0; index < engines.count; index += 1) { lowered.push(engines.text(index).toLowerCase()); }
      }
      var fits = lowered.map(function (text) {
        return words.every(function (word) { return text.indexOf(word) >= 0; });
      });
      fits.forEach(function (each) { shown += each ? 1 : 0; });
      engines.narrow(fits, shown === engines.count);
      document.getElementById("filtered").textContent =
        words.length ? shown + " of " + engines.count + " shown" : "";
    });
  }
  var opened = function (state) {
    all().forEach(function (each) { each.open = state; });
    label();
  };
  if (toggle) { toggle.addEventListener("click", function () { opened(!areOpen()); }); }
  var reveal = function () {
    var id = location.hash.slice(1), target = document.getElementById(id);
    if (!target && id && lists.some(function (each) { return each.reveal(id); })) {
      target = document.getElementById(id);
    }
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
  };
  window.addEventListener("hashchange", reveal);
  // A link to where the page already is changes no hash.
  document.addEventListener("click", function (event) {
    var link = event.target.closest("a");
    if (link && link.hash && link.hash === location.hash) { reveal(); }
  });
  reveal();
  window.addEventListener("beforeprint", function () { if (all().length <= 40) { opened(true); } });
})();
