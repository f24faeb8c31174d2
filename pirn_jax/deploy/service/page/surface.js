// The scan as a lit surface, its photograph under the heatmap: WebGL 2, nothing else.
import { INFERNO } from "./colours.js";

const VERTEX = `#version 300 es
in vec3 place; in vec2 at;
uniform mat4 view; uniform mat3 turn;
out vec2 uv; out vec3 eye;
void main() { uv = at; eye = turn * place; gl_Position = view * vec4(place, 1.0); }`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 uv; in vec3 eye;
uniform sampler2D photograph, heat, colours; uniform float opacity, grey;
out vec4 colour;
void main() {
  vec3 normal = normalize(cross(dFdx(eye), dFdy(eye)));
  float light = 0.55 + 0.75 * pow(abs(dot(normal, normalize(vec3(0.35, 0.45, 0.82)))), 1.2);
  vec3 base = mix(texture(photograph, uv).rgb, vec3(0.72), grey);
  float h = texture(heat, uv).r;
  float cover = opacity * clamp((h - 0.12) / 0.34, 0.0, 1.0);
  colour = vec4(mix(base, texture(colours, vec2(h, 0.5)).rgb, cover) * light, 1.0);
}`;

// Rows, columns, then x y z of each; a mesh of all neighbours that lie on one face.
function mesh(buffer) {
  const [rows, columns] = new Uint32Array(buffer, 0, 2);
  const xyz = new Float32Array(buffer, 8, rows * columns * 3);
  const is = (i) => xyz[3 * i] !== 0 || xyz[3 * i + 1] !== 0 || xyz[3 * i + 2] !== 0;
  const far = (i, j) => Math.hypot(
    xyz[3 * i] - xyz[3 * j], xyz[3 * i + 1] - xyz[3 * j + 1], xyz[3 * i + 2] - xyz[3 * j + 2]);
  const steps = [];
  for (let i = 0; i + 1 < rows * columns; i += 7) {
    if ((i + 1) % columns && is(i) && is(i + 1)) steps.push(far(i, i + 1));
  }
  steps.sort((a, b) => a - b);
  const gap = 8 * (steps[steps.length >> 1] || 1);
  const faces = [];
  const face = (a, b, c) => {
    if (is(a) && is(b) && is(c) && far(a, b) < gap && far(b, c) < gap && far(c, a) < gap) faces.push(a, b, c);
  };
  for (let r = 0; r + 1 < rows; r++) {
    for (let c = 0; c + 1 < columns; c++) {
      const i = r * columns + c;
      face(i, i + columns, i + 1);
      face(i + 1, i + columns, i + columns + 1);
    }
  }
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (const i of new Set(faces)) {
    for (let k = 0; k < 3; k++) {
      low[k] = Math.min(low[k], xyz[3 * i + k]);
      high[k] = Math.max(high[k], xyz[3 * i + k]);
    }
  }
  const middle = low.map((value, k) => (value + high[k]) / 2);
  const reach = Math.max(1e-6, Math.hypot(...low.map((value, k) => high[k] - value)) / 2);
  const places = new Float32Array(xyz.length), at = new Float32Array(2 * rows * columns);
  for (let i = 0; i < rows * columns; i++) {
    places[3 * i] = (xyz[3 * i] - middle[0]) / reach;
    places[3 * i + 1] = -(xyz[3 * i + 1] - middle[1]) / reach; // the camera's y points down
    places[3 * i + 2] = -(xyz[3 * i + 2] - middle[2]) / reach; // and its z away
    at[2 * i] = ((i % columns) + 0.5) / columns;
    at[2 * i + 1] = (Math.floor(i / columns) + 0.5) / rows;
  }
  return { places, at, faces: new Uint32Array(faces) };
}

export class Surface {
  constructor(canvas) {
    this.canvas = canvas;
    this.across = -0.4; this.down = 0.5; this.distance = 1.75;
    this.opacity = 0.75; this.count = 0;
    const gl = (this.gl = canvas.getContext("webgl2", { antialias: true, alpha: true }));
    if (!gl) return;
    const program = (this.program = gl.createProgram());
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.enable(gl.DEPTH_TEST);
    this.buffers = ["place", "at", "faces"].map(() => gl.createBuffer());
    this.textures = ["photograph", "heat", "colours"].map((name, unit) => {
      gl.uniform1i(gl.getUniformLocation(program, name), unit);
      return gl.createTexture();
    });
    this.texture(2, (target) =>
      gl.texImage2D(target, 0, gl.RGB, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, INFERNO));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  get works() { return Boolean(this.gl); }

  texture(unit, fill) {
    const gl = this.gl;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, this.textures[unit]);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    fill(gl.TEXTURE_2D);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.LINEAR);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  }

  show(buffer, photograph, heat) {
    const gl = this.gl, { places, at, faces } = mesh(buffer);
    [["place", places, 3], ["at", at, 2]].forEach(([name, values, size], k) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[k]);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      const where = gl.getAttribLocation(this.program, name);
      gl.enableVertexAttribArray(where);
      gl.vertexAttribPointer(where, size, gl.FLOAT, false, 0, 0);
    });
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.buffers[2]);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
    this.count = faces.length;
    gl.uniform1f(gl.getUniformLocation(this.program, "grey"), photograph ? 0 : 1);
    for (const [unit, picture] of [[0, photograph || heat], [1, heat]]) {
      this.texture(unit, (target) => gl.texImage2D(target, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, picture));
    }
    this.draw();
  }

  draw() {
    const { gl, canvas } = this;
    if (!gl || !this.count || canvas.hidden) return;
    const ratio = Math.min(2, devicePixelRatio || 1);
    canvas.width = Math.max(1, canvas.clientWidth * ratio);
    canvas.height = Math.max(1, canvas.clientHeight * ratio);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const [ca, sa, cd, sd] = [Math.cos(this.across), Math.sin(this.across), Math.cos(this.down), Math.sin(this.down)];
    // About the upright axis, then about the level one; columns first, as WebGL has them.
    const turn = [ca, sd * sa, -cd * sa, 0, cd, sd, sa, -sd * ca, cd * ca];
    const focal = 1.75, aspect = canvas.width / canvas.height, near = 0.05, far = 20;
    const fx = aspect > 1 ? focal / aspect : focal, fy = aspect > 1 ? focal : focal * aspect;
    const p = (far + near) / (near - far), q = (2 * far * near) / (near - far), d = this.distance;
    const view = [];
    for (let k = 0; k < 3; k++) view.push(fx * turn[3 * k], fy * turn[3 * k + 1], p * turn[3 * k + 2], -turn[3 * k + 2]);
    view.push(0, 0, p * -d + q, d);
    gl.uniformMatrix4fv(gl.getUniformLocation(this.program, "view"), false, view);
    gl.uniformMatrix3fv(gl.getUniformLocation(this.program, "turn"), false, turn);
    gl.uniform1f(gl.getUniformLocation(this.program, "opacity"), this.opacity);
    gl.drawElements(gl.TRIANGLES, this.count, gl.UNSIGNED_INT, 0);
  }

  move(across, down, nearer = 1) {
    this.across += across;
    this.down = Math.max(-1.5, Math.min(1.5, this.down + down));
    this.distance = Math.max(0.6, Math.min(8, this.distance * nearer));
    this.draw();
  }

  listen() {
    const canvas = this.canvas;
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
      last = [event.clientX, event.clientY];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      this.move((event.clientX - last[0]) * 0.008, (event.clientY - last[1]) * 0.008);
      last = [event.clientX, event.clientY];
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.move(0, 0, Math.exp(event.deltaY * 0.001));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1],
        "+": [0, 0, 0.9], "=": [0, 0, 0.9], "-": [0, 0, 1.1] }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      this.move(...step);
    });
  }
}
