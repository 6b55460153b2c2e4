// The cortex in WebGL: colours by magnitude, a line around sets of sources, a ring at the peak.

import {
  BufferAttribute, BufferGeometry, DataTexture, Mesh, PerspectiveCamera, Raycaster, RGBAFormat,
  Scene, ShaderMaterial, Vector2, Vector3, WebGLRenderer, LinearFilter,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";

const GAP = 0.012; // between the hemispheres, m
const DISTANCE = 0.5; // of the camera, m
const HIGH = 28, WIDE = 30; // angles that hold the cortex from top to bottom and across, degrees
export const VIEWS = {
  left: [-1, 0, 0], right: [1, 0, 0], front: [0, 1, 0], back: [0, -1, 0], top: [0, 0, 1],
  bottom: [0, 0, -1],
};

const VERTEX = `
attribute float level; attribute float inside; attribute float grey;
varying float vLevel; varying float vInside; varying float vGrey; varying vec3 vNormal;
varying vec3 vEye; varying vec3 vPlace;
void main() {
  vLevel = level; vInside = inside; vGrey = grey; vPlace = position;
  vNormal = normalMatrix * normal;
  vec4 eye = modelViewMatrix * vec4(position, 1.0);
  vEye = -eye.xyz;
  gl_Position = projectionMatrix * eye;
}`;
// The colour fades in above the threshold, as in the pictures of deepesi.viz.cortex.
const FRAGMENT = `
uniform sampler2D colours; uniform float threshold; uniform vec3 peak;
varying float vLevel; varying float vInside; varying float vGrey; varying vec3 vNormal;
varying vec3 vEye; varying vec3 vPlace;
void main() {
  float opacity = clamp((vLevel - threshold) / 0.15, 0.0, 1.0);
  vec3 hot = texture2D(colours, vec2(0.25 + 0.7 * clamp(vLevel, 0.0, 1.0), 0.5)).rgb;
  vec3 colour = mix(vec3(vGrey), hot, opacity);
  colour *= 0.6 + 0.4 * abs(dot(normalize(vNormal), normalize(vEye)));
  float width = fwidth(vInside);
  float line = 1.0 - smoothstep(1.0, 2.0, abs(vInside - 0.5) / max(width, 1e-6));
  if (width > 1e-6) colour = mix(colour, vec3(0.0, 0.9, 1.0), line);
  float off = abs(distance(vPlace, peak) - 0.006);
  colour = mix(colour, vec3(0.0), 1.0 - smoothstep(0.0011, 0.0015, off)); // seen on any ground
  colour = mix(colour, vec3(1.0), 1.0 - smoothstep(0.0006, 0.0010, off));
  gl_FragColor = vec4(colour, 1.0);
}`;

export class Cortex {
  /** Throws where there is no WebGL. */
  constructor(canvas, data) {
    this.canvas = canvas;
    this.data = data;
    this.renderer = new WebGLRenderer({ canvas, antialias: true });
    this.renderer.setClearColor(0xffffff);
    this.scene = new Scene();
    this.camera = new PerspectiveCamera(HIGH, 1, 0.01, 2);
    this.camera.up.set(0, 0, 1);
    this.uniforms = {
      colours: { value: texture(data.colours) }, threshold: { value: 0.25 },
      peak: { value: new Vector3() },
    };
    const n = data.positions.length / 6;
    this.sides = [0, 1].map(side => this.hemisphere(side, n));
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enablePan = false;
    this.controls.minDistance = 0.2;
    this.controls.maxDistance = 0.9;
    this.controls.addEventListener("change", () => this.draw());
    canvas.style.touchAction = "pan-y"; // a finger that moves up or down scrolls the page
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  hemisphere(side, n) {
    const { positions, faces, sulci } = this.data;
    const place = new Float32Array(3 * n);
    let edge = side ? Infinity : -Infinity;
    for (let k = 0; k < 3 * n; k++) place[k] = positions[3 * n * side + k] * 1e-5;
    for (let v = 0; v < n; v++) edge = (side ? Math.min : Math.max)(edge, place[3 * v]);
    const shift = (side ? GAP / 2 : -GAP / 2) - edge;
    for (let v = 0; v < n; v++) place[3 * v] += shift;
    const geometry = new BufferGeometry();
    geometry.setAttribute("position", new BufferAttribute(place, 3));
    geometry.setIndex(new BufferAttribute(faces, 1));
    geometry.computeVertexNormals();
    geometry.computeBoundingSphere();
    const grey = Float32Array.from({ length: n }, (_, v) => (sulci[side * n + v] ? 0.66 : 0.82));
    geometry.setAttribute("grey", new BufferAttribute(grey, 1));
    for (const name of ["level", "inside"])
      geometry.setAttribute(name, new BufferAttribute(new Float32Array(n), 1));
    const material = new ShaderMaterial({
      uniforms: this.uniforms, vertexShader: VERTEX, fragmentShader: FRAGMENT,
    });
    const mesh = new Mesh(geometry, material);
    this.scene.add(mesh);
    return mesh;
  }

  /** Show a map at a sample up to a limit, with the line of an outline (negative: none). */
  show(map, sample, limit, outline, threshold) {
    const { data } = this, half = data.nSources / 2;
    const inside = outline < 0 ? () => 0 : s => data.inside(outline, sample, s);
    for (const [side, mesh] of this.sides.entries()) {
      const level = s => data.value(map, sample, side * half + s) / limit;
      this.interpolate(mesh.geometry.attributes.level, level);
      this.interpolate(mesh.geometry.attributes.inside, s => inside(side * half + s));
    }
    this.uniforms.threshold.value = threshold;
    const peak = data.strongest(map, sample), side = peak < half ? 0 : 1;
    const place = this.sides[side].geometry.attributes.position;
    this.uniforms.peak.value.fromBufferAttribute(place, peak - side * half);
    this.draw();
  }

  interpolate(attribute, value) {
    const { index, weight } = this.data, to = attribute.array;
    for (let v = 0; v < to.length; v++) {
      let sum = 0;
      for (let k = 3 * v; k < 3 * v + 3; k++) if (weight[k]) sum += weight[k] * value(index[k]);
      to[v] = sum / 255;
    }
    attribute.needsUpdate = true;
  }

  look(view) {
    const eye = new Vector3(...VIEWS[view]).multiplyScalar(DISTANCE);
    this.camera.position.copy(this.controls.target).add(eye);
    this.controls.update();
    this.draw();
  }

  /** Look at a source; returns the hemisphere that hides it and is to be left out, else null. */
  face(source) {
    const half = this.data.nSources / 2, side = source < half ? 0 : 1;
    const normals = this.sides[side].geometry.attributes.normal;
    const normal = new Vector3().fromBufferAttribute(normals, source - side * half);
    const facing = view => normal.dot(new Vector3(...VIEWS[view]));
    const view = Object.keys(VIEWS).reduce((a, b) => (facing(b) > facing(a) ? b : a));
    const isMedial = view === (side ? "left" : "right");
    this.only(isMedial ? side : null);
    this.look(view);
    return isMedial ? 1 - side : null;
  }

  /** Show both hemispheres, or only one: 0 left, 1 right. */
  only(side) {
    this.sides.forEach((mesh, k) => { mesh.visible = side === null || side === k; });
    const x = side === null ? 0 : this.sides[side].geometry.boundingSphere.center.x;
    this.camera.position.x += x - this.controls.target.x;
    this.controls.target.x = x;
    this.controls.update();
    this.draw();
  }

  /** Turn by angles in rad, and move closer by a factor. */
  turn(right, up, closer = 1) {
    const { camera, controls } = this, eye = camera.position.clone().sub(controls.target);
    const across = eye.clone().cross(camera.up).normalize();
    const polar = Math.min(Math.max(eye.angleTo(camera.up) - up, 0.05), Math.PI - 0.05);
    eye.applyAxisAngle(across, eye.angleTo(camera.up) - polar).applyAxisAngle(camera.up, right);
    camera.position.copy(controls.target).addScaledVector(eye, 1 / closer);
    controls.update();
    this.draw();
  }

  /** The source under a point of the page, or null. */
  sourceAt(x, y) {
    const box = this.canvas.getBoundingClientRect(), ray = new Raycaster();
    const at = new Vector2(2 * (x - box.left) / box.width - 1, 1 - 2 * (y - box.top) / box.height);
    ray.setFromCamera(at, this.camera);
    const [hit] = ray.intersectObjects(this.sides.filter(mesh => mesh.visible));
    if (!hit) return null;
    const side = this.sides.indexOf(hit.object), place = hit.object.geometry.attributes.position;
    const corners = [hit.face.a, hit.face.b, hit.face.c], corner = new Vector3();
    const off = corners.map(v => corner.fromBufferAttribute(place, v).distanceTo(hit.point));
    const vertex = corners[off.indexOf(Math.min(...off))], { index, weight } = this.data;
    let best = 3 * vertex;
    for (let k = best + 1; k < 3 * vertex + 3; k++) if (weight[k] > weight[best]) best = k;
    return side * this.data.nSources / 2 + index[best];
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.fov = Math.max(HIGH, WIDE / (width / height)); // all of it, on a phone too
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  /** Draw once, before the browser shows the next frame. */
  draw() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = undefined;
      this.renderer.render(this.scene, this.camera);
    });
  }
}

function texture(colours) {
  const rgba = new Uint8Array(4 * 256).fill(255);
  for (let k = 0; k < 256; k++) rgba.set(colours.subarray(3 * k, 3 * k + 3), 4 * k);
  const made = new DataTexture(rgba, 256, 1, RGBAFormat);
  made.minFilter = made.magFilter = LinearFilter;
  made.needsUpdate = true;
  return made;
}
