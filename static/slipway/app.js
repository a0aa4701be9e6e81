// The shell: copy buttons, times, keys, palette, counts and the live stream.
import "./copy.js";
import "./times.js";
import "./keys.js";
import "./palette.js";
import "./counts.js";
import "./scroll.js";
import { start } from "./live.js";

start();
