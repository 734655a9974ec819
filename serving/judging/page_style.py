"""The page's style sheet: light and dark, from a phone to a wide screen, nothing fetched."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #ffffff; --ink: #1d2127; --soft: #5b636e; --faint: #b9c0c9;
  --edge: #e3e7ec; --good: #1a7f4b; --bad: #c0342b; --calm: #4a5560; --goodbg: #e4f4ea; --badbg: #fbe9e7; --calmbg: #eceff3;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171b; --card: #1c2026; --ink: #e8ebef; --soft: #a3acb8;
  --faint: #4a525d; --edge: #2c323a; --good: #66cf98; --bad: #ff8f85; --calm: #b5bfca; --goodbg: #17352a; --badbg: #3d2120;
  --calmbg: #2a3038; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 16px/1.55 var(--font); }
main { max-width: 1080px; margin: 0 auto; padding: 28px 16px 64px; }
h1 { font-size: clamp(1.5rem, 4.5vw, 2.1rem); line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 40px 0 12px; }
p { margin: 0 0 12px; max-width: 76ch; } .soft { color: var(--soft); }
.cards { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); margin-top: 22px; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 14px; padding: 16px 18px; min-width: 0; }
.card h3 { margin: 0; font-size: 1.02rem; overflow-wrap: anywhere; display: flex; gap: 8px; align-items: baseline; }
.dot { width: 11px; height: 11px; border-radius: 50%; flex: none; align-self: center; }
.big { font-size: 1.9rem; font-weight: 650; letter-spacing: -.02em; margin: 8px 0 0; font-variant-numeric: tabular-nums; }
.small { font-size: .88rem; color: var(--soft); margin: 2px 0 8px; }
.badge { display: inline-block; border-radius: 99px; padding: 2px 11px; font-size: .82rem; font-weight: 600; }
.good { color: var(--good); background: var(--goodbg); } .bad { color: var(--bad); background: var(--badbg); }
.calm { color: var(--calm); background: var(--calmbg); }
dl { display: grid; grid-template-columns: auto 1fr; gap: 3px 14px; margin: 12px 0 0; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.charts { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.charts svg { display: block; width: 100%; height: auto; } figure { margin: 0; }
.table { overflow-x: auto; background: var(--card); border: 1px solid var(--edge); border-radius: 14px; margin: 0 0 14px; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 8px 12px; border-bottom: 1px solid var(--edge); vertical-align: top; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; line-height: 1.3; }
tr:last-child td { border-bottom: 0; }
.shots { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr)); }
.shot { padding: 0; overflow: hidden; display: flex; flex-direction: column; }
.shot .frame { background: var(--calmbg); display: flex; align-items: center; justify-content: center;
  height: 190px; padding: 10px; }
.shot img { max-width: 100%; max-height: 100%; object-fit: contain; border-radius: 4px; background: #fff; }
.shot img.tiny { image-rendering: pixelated; height: 100%; width: 100%; background: none; }
.shot .text { padding: 12px 14px 14px; font-size: .9rem; }
.shot p { margin: 0 0 8px; white-space: pre-line; overflow-wrap: anywhere; }
ul.said { list-style: none; margin: 0; padding: 0; }
ul.said li { display: flex; gap: 8px; padding: 3px 0; align-items: baseline; }
ul.said b { flex: none; width: 1.2em; text-align: center; } ul.said .who { color: var(--soft); }
ul.said .who, ul.said .what { overflow-wrap: anywhere; min-width: 0; } ul.said .what { margin-left: auto; text-align: right; }
.yes { color: var(--good); } .no { color: var(--bad); }
details { margin: 0 0 12px; } summary { cursor: pointer; color: var(--soft); }
pre { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 12px;
  overflow-x: auto; font-size: .8rem; }
code { font-size: .88em; overflow-wrap: anywhere; }
"""
