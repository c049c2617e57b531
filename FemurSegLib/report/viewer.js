// Bones that turn under the mouse, in WebGL. The page holds <div class="viewer"> with a canvas, a fallback picture and
// buttons, and the scene as JSON in <script id="scene"> (see model.py). Coordinates are LPS mm.
(function () {
  "use strict";
  const box = document.querySelector(".viewer"), source = document.getElementById("scene");
  const canvas = box && box.querySelector("canvas");
  const gl = canvas && source && canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
  if (!gl || !gl.getExtension("OES_element_index_uint")) return; // the fallback picture stays
  const scene = JSON.parse(source.textContent);
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer;

  function shader(kind, text) {
    const made = gl.createShader(kind);
    gl.shaderSource(made, text);
    gl.compileShader(made);
    if (!gl.getShaderParameter(made, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(made));
    return made;
  }
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `
    attribute vec3 at, normal;
    uniform mat3 turn; uniform vec3 middle; uniform vec2 scale; uniform float depth;
    varying vec3 facing;
    void main() {
      vec3 p = turn * (at - middle);
      facing = turn * normal;
      gl_Position = vec4(p.xy * scale, -p.z / depth, 1.0);
    }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `
    precision mediump float;
    uniform vec3 color; uniform float lit;
    varying vec3 facing;
    void main() {
      vec3 n = normalize(facing + vec3(0.0, 0.0, 1e-6));
      float light = 0.30 + 0.70 * max(dot(n, normalize(vec3(-0.35, 0.45, 0.82))), 0.0);
      gl_FragColor = vec4(color * mix(1.0, light, lit), 1.0);
    }`));
  gl.linkProgram(program);
  gl.useProgram(program);
  const place = {}, uniform = name => place[name] || (place[name] = gl.getUniformLocation(program, name));
  const AT = gl.getAttribLocation(program, "at"), NORMAL = gl.getAttribLocation(program, "normal");

  function buffer(target, data) {
    const made = gl.createBuffer();
    gl.bindBuffer(target, made);
    gl.bufferData(target, data, gl.STATIC_DRAW);
    return made;
  }
  function normals(points, triangles) { // of the corners, weighted by the area of what meets there
    const sum = new Float32Array(points.length);
    for (let t = 0; t < triangles.length; t += 3) {
      const [a, b, c] = [0, 1, 2].map(n => 3 * triangles[t + n]);
      const u = [0, 1, 2].map(n => points[b + n] - points[a + n]), v = [0, 1, 2].map(n => points[c + n] - points[a + n]);
      const cross = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      for (const corner of [a, b, c]) for (let n = 0; n < 3; n++) sum[corner + n] += cross[n];
    }
    return sum;
  }
  let low = [1e9, 1e9, 1e9], high = [-1e9, -1e9, -1e9];
  const bones = scene.bones.map(bone => {
    const steps = new Uint16Array(bytes(bone.points));
    const points = Float32Array.from(steps, (s, n) => scene.lower_mm[n % 3] + s / 65535 * scene.size_mm);
    const triangles = bone.wide ? new Uint32Array(bytes(bone.triangles)) : new Uint16Array(bytes(bone.triangles));
    points.forEach((x, n) => { low[n % 3] = Math.min(low[n % 3], x); high[n % 3] = Math.max(high[n % 3], x); });
    return {
      color: bone.color, count: triangles.length, kind: bone.wide ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT,
      points: buffer(gl.ARRAY_BUFFER, points), normals: buffer(gl.ARRAY_BUFFER, normals(points, triangles)),
      triangles: buffer(gl.ELEMENT_ARRAY_BUFFER, triangles),
    };
  });
  const lines = scene.lines.map(line => ({
    color: line.color, points: buffer(gl.ARRAY_BUFFER, new Float32Array(line.ends.flat())),
  }));
  const middle = low.map((x, n) => (x + high[n]) / 2), radius = Math.hypot(...low.map((x, n) => high[n] - x)) / 2;

  // Rows of a turn: the LPS directions that point right, up, and towards the reader.
  const VIEWS = {
    front: [[1, 0, 0], [0, 0, 1], [0, -1, 0]], back: [[-1, 0, 0], [0, 0, 1], [0, 1, 0]],
    right: [[0, -1, 0], [0, 0, 1], [-1, 0, 0]], left: [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
    below: [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
  };
  let turn = VIEWS.front, zoom = 1, showLines = true;
  const times = (a, b) => a.map(row => [0, 1, 2].map(n => row[0] * b[0][n] + row[1] * b[1][n] + row[2] * b[2][n]));

  function draw() {
    const ratio = Math.max(2, window.devicePixelRatio || 1), width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(1, 1, 1, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const extent = row => row.reduce((sum, x, n) => sum + Math.abs(x) * (high[n] - low[n]), 0) / 2;
    const fit = zoom * Math.min(width / extent(turn[0]), height / extent(turn[1])) / 2 * 0.94;
    gl.uniformMatrix3fv(uniform("turn"), false, [0, 1, 2].flatMap(n => turn.map(row => row[n])));
    gl.uniform3fv(uniform("middle"), middle);
    gl.uniform2f(uniform("scale"), 2 * fit / width, 2 * fit / height);
    gl.uniform1f(uniform("depth"), 1.5 * radius);
    gl.enable(gl.DEPTH_TEST);
    gl.uniform1f(uniform("lit"), 1);
    gl.enableVertexAttribArray(AT);
    for (const bone of bones) {
      gl.bindBuffer(gl.ARRAY_BUFFER, bone.points);
      gl.vertexAttribPointer(AT, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, bone.normals);
      gl.enableVertexAttribArray(NORMAL);
      gl.vertexAttribPointer(NORMAL, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, bone.triangles);
      gl.uniform3fv(uniform("color"), bone.color);
      gl.drawElements(gl.TRIANGLES, bone.count, bone.kind, 0);
    }
    gl.disable(gl.DEPTH_TEST); // the axes run inside the bone
    gl.disableVertexAttribArray(NORMAL);
    gl.uniform1f(uniform("lit"), 0);
    for (const line of showLines ? lines : []) {
      gl.bindBuffer(gl.ARRAY_BUFFER, line.points);
      gl.vertexAttribPointer(AT, 3, gl.FLOAT, false, 0, 0);
      gl.uniform3fv(uniform("color"), line.color);
      for (const [x, y] of [[0, 0], [1, 0], [0, 1], [1, 1]]) { // WebGL draws lines one pixel wide: four beside each other
        gl.viewport(x, y, canvas.width, canvas.height);
        gl.drawArrays(gl.LINES, 0, 2);
      }
    }
  }
  function spin(dx, dy) {
    const c = Math.cos(dx), s = Math.sin(dx), k = Math.cos(dy), m = Math.sin(dy);
    turn = times([[1, 0, 0], [0, k, -m], [0, m, k]], times([[c, 0, s], [0, 1, 0], [-s, 0, c]], turn));
    draw();
  }
  let held = null;
  canvas.addEventListener("pointerdown", e => { held = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointermove", e => {
    if (!held) return;
    spin((e.clientX - held[0]) * 0.008, (e.clientY - held[1]) * 0.008);
    held = [e.clientX, e.clientY];
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
  canvas.addEventListener("wheel", e => {
    e.preventDefault();
    zoom = Math.min(12, Math.max(0.5, zoom * Math.exp(-e.deltaY * 0.0012)));
    draw();
  }, { passive: false });
  canvas.addEventListener("keydown", e => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[e.key];
    if (step) { e.preventDefault(); spin(...step); }
  });
  for (const button of box.querySelectorAll("button")) button.addEventListener("click", () => {
    if (button.dataset.view) { turn = VIEWS[button.dataset.view]; zoom = 1; } else showLines = !showLines;
    draw();
  });
  box.classList.add("live");
  new ResizeObserver(draw).observe(canvas);
  window.addEventListener("beforeprint", draw);
  draw();
})();
