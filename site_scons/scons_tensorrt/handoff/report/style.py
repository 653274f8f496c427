"""The page's style. Fonts are the reader's own; both colour schemes keep 4.5 : 1 for text."""

STYLE = """
:root{color-scheme:light dark;--bg:#f5f6f8;--card:#fff;--text:#1b2330;--soft:#556070;--line:#dde1e7;
--zebra:#fafbfc;--accent:#1f5fbf;--built:#1f5fbf;--reused:#23764a;--failed:#b3261e;--warn:#8a5300;
--built-bg:#e6eefb;--reused-bg:#e2f3ea;--failed-bg:#fce8e6;--warn-bg:#fdf0d9;--none-bg:#eceef1;
--bar:#8fb2e6;--bar2:#9ccfb5;--convert:#c9a2e0;--check:#e3bd6d;--compile:#6d9ce0;--grid:#e8ebef}
@media screen and (prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1a2029;--text:#e6eaf0;
--soft:#a3afbf;
--line:#313a47;--zebra:#1e2530;--accent:#8ab8ff;--built:#8ab8ff;--reused:#7fd6a5;--failed:#ff9d94;
--warn:#f2c26b;--built-bg:#1c2e4a;--reused-bg:#173526;--failed-bg:#47201d;--warn-bg:#40310f;
--none-bg:#2a323e;--bar:#3f6cab;--bar2:#35795a;--convert:#8a5ea6;--check:#9a7526;--compile:#3f6cab;
--grid:#29313c}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;overflow-wrap:anywhere;background:var(--bg);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main,header,footer{max-width:1240px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px}
h2{font-size:18px;margin:0 0 4px}
h3{font-size:14px;margin:18px 0 6px}
p{margin:0 0 8px}
.soft,figcaption,.note{color:var(--soft)}
.note{font-size:13.5px;margin-bottom:12px}
a{color:var(--accent)}
code,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
font-size:.88em;overflow-wrap:anywhere}
.verdict{display:flex;gap:14px;align-items:center;border-radius:10px;padding:14px 18px;margin:18px 0;
border:1px solid;font-size:17px;font-weight:600}
.verdict small{display:block;font-weight:400;font-size:14px;color:var(--text)}
.verdict .sign{font-size:26px;line-height:1}
.good{background:var(--reused-bg);color:var(--reused);border-color:currentColor}
.bad{background:var(--failed-bg);color:var(--failed);border-color:currentColor}
.careful{background:var(--warn-bg);color:var(--warn);border-color:currentColor}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0 0 18px;
padding:0;list-style:none}
.tiles li{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.tiles b{display:block;font-size:24px;line-height:1.25;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:13.5px}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;
margin:0 0 18px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:8px 10px;border-bottom:1px solid var(--line)}
tbody tr:last-child>*{border-bottom:0}
thead th{font-size:13px;color:var(--soft);border-bottom:2px solid var(--line);white-space:nowrap;
vertical-align:bottom}
tbody th{font-weight:600;width:26%;min-width:170px}
td[data-label=Outcome]{min-width:150px}
td[data-label=For]{min-width:120px}
.num{text-align:right;white-space:nowrap}
.sub{display:block;color:var(--soft);font-size:13px;font-weight:400;overflow-wrap:anywhere}
th button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:2px 0;
cursor:pointer;
text-align:inherit}
th button::after{content:" \\2195";opacity:.45}
th[aria-sort=ascending] button::after{content:" \\2191";opacity:1}
th[aria-sort=descending] button::after{content:" \\2193";opacity:1}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:3px}
.badge{display:inline-block;border-radius:999px;padding:1px 9px;font-size:13px;font-weight:600;
white-space:nowrap;background:var(--none-bg)}
.b-built{background:var(--built-bg);color:var(--built)}
.b-reused{background:var(--reused-bg);color:var(--reused)}
.b-failed{background:var(--failed-bg);color:var(--failed)}
.b-warn{background:var(--warn-bg);color:var(--warn)}
svg{display:block;width:100%;overflow:visible}
svg text{fill:var(--soft);font-size:12px}
.bar{fill:var(--bar)}.bar2{fill:var(--bar2)}.back{fill:var(--grid)}.grid{stroke:var(--grid)}
.f-built{fill:var(--built)}.f-reused{fill:var(--reused)}.f-fetched{fill:var(--bar2)}.f-dispatched{fill:var(--bar)}
.f-failed{fill:var(--failed)}
.s-convert{fill:var(--convert)}.s-check{fill:var(--check)}.s-compile{fill:var(--compile)}
.s-failed{fill:var(--failed)}
.cellbar{margin-top:4px;min-width:70px}
.timeline{list-style:none;margin:0;padding:0}
.timeline li{display:grid;grid-template-columns:minmax(120px,220px) 1fr;gap:14px;align-items:center;
padding:1px 0}
.timeline .label{font-size:13.5px;overflow-wrap:anywhere;line-height:1.25}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 10px;padding:0;list-style:none;
font-size:13.5px}
.legend svg{display:inline-block;width:12px;height:12px;vertical-align:-1px;margin-right:6px}
.attention{margin:0;padding:0;list-style:none}
.attention li{border-left:4px solid var(--failed);padding:4px 0 4px 12px;margin:0 0 10px;
overflow-wrap:anywhere}
.attention li.w{border-color:var(--warn)}
.tools{display:flex;flex-wrap:wrap;gap:10px;margin:0 0 10px;align-items:center}
.tools input{font:inherit;padding:6px 10px;border:1px solid var(--line);border-radius:8px;
background:var(--bg);color:var(--text);width:280px;max-width:100%}
.tools button{font:inherit;font-size:14px;padding:6px 12px;border:1px solid var(--line);
border-radius:8px;
background:var(--bg);color:var(--text);cursor:pointer}
details{border-top:1px solid var(--line)}
details:first-of-type{border-top:0}
summary{cursor:pointer;padding:10px 2px;font-weight:600;overflow-wrap:anywhere}
summary .sub{display:inline;margin-left:8px}
.inside{padding:0 2px 14px 18px}
dl{display:grid;grid-template-columns:minmax(110px,170px) 1fr;gap:4px 14px;margin:0}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
.chips{display:flex;flex-wrap:wrap;gap:6px;margin:0;padding:0;list-style:none}
.chips li{background:var(--none-bg);border-radius:6px;padding:1px 8px;font-size:13px;
overflow-wrap:anywhere}
.whole{overflow-wrap:normal;white-space:nowrap}
.js-only{display:none}
.js .js-only{display:flex}
footer{padding-bottom:32px;color:var(--soft);font-size:13.5px}
.plain{margin:0}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
[hidden]{display:none!important}
@media screen and (max-width:1000px){
main,header,footer{padding-left:12px;padding-right:12px}
section{padding:14px}
.tiles{grid-template-columns:1fr 1fr}
.timeline li{grid-template-columns:1fr;gap:2px;padding:4px 0}
.inside{padding-left:4px}
dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:8px}
table.cards,table.cards tbody,table.cards tr,table.cards td,table.cards tbody th{display:block;
width:100%}
table.cards thead{display:none}
.js table.cards.sortable thead{display:block}
.js table.cards.sortable thead tr{display:flex;flex-wrap:wrap;gap:2px 14px}
.js table.cards.sortable thead th{border:0;padding:2px 0}
table.cards tbody tr{border:1px solid var(--line);border-radius:8px;padding:8px 10px;margin:0 0 10px}
table.cards tbody tr>*{min-width:0;border:0;padding:3px 0;text-align:left}
table.cards td{display:grid;grid-template-columns:112px minmax(0,1fr);gap:8px}
table.cards td::before{content:attr(data-label);color:var(--soft);font-size:13px}
table.cards td .sub{font-size:13px}
}
@media print{
:root{color-scheme:light;--bg:#fff;--card:#fff;--text:#000;--soft:#444;--line:#bbb;--accent:#000}
body{font-size:10.5px}
main,header,footer{max-width:none;padding:0}
section{border:0;padding:8px 0;margin:0 0 8px}
h2,.note,.tools,summary{break-after:avoid}
.sub,.note,.legend,.badge,.timeline .label,.tiles span,thead th,table.cards td .sub{font-size:9px}
.inside{padding-bottom:6px}
dl{gap:1px 10px}
summary{padding:4px 2px}
h3{font-size:10.5px;margin:8px 0 2px}
.verdict{margin:8px 0;padding:8px 12px;font-size:13px}
.verdict small{font-size:10.5px}
h1{font-size:20px}
h2{font-size:14px}
.chips li{font-size:9px}
tr,dl>*,.timeline li,.tiles li,.attention li{break-inside:avoid}
thead{display:table-header-group}
th,td{padding:4px 6px}
.tools,.skip{display:none!important}
th button{display:none}
tbody th{min-width:140px}
td[data-label=Outcome]{min-width:100px}
td[data-label=For]{min-width:70px}
th[data-title]::before{content:attr(data-title)}
.tiles{grid-template-columns:repeat(6,1fr)}
.tiles b{font-size:16px}
svg *,.badge,.verdict{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
@page{margin:14mm}
"""
