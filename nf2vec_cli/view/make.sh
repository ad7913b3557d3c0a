#!/usr/bin/env bash
# How three.min.js was made: what the page uses of three.js (npm, MIT) and two of its add-ons, as one file.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
cd "$scratch"
npm init --yes >/dev/null
npm install --silent three@0.187.0 esbuild@0.28.2
cat >entry.js <<'JS'
export {
  BufferAttribute, BufferGeometry, Color, DirectionalLight, DoubleSide, HemisphereLight, Mesh, MeshLambertMaterial,
  PerspectiveCamera, Scene, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { toCreasedNormals } from "three/addons/utils/BufferGeometryUtils.js";
JS
npx esbuild entry.js --bundle --minify --format=iife --global-name=THREE --legal-comments=inline --outfile="$here/three.min.js"
cp node_modules/three/LICENSE "$here/three.LICENSE"
