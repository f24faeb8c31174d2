// matplotlib's inferno (CC0), every eighth of its colours: black is the least, yellow the most.
const STOPS = "000004,040312,0b0724,150b37,210c4a,2f0a5b,3d0965,4a0c6b,57106e,64156e,71196e,7d1e6d,8a226a,972766,a32c61,b0315b,bc3754,c73e4c,d24644,db503b,e45a31,eb6628,f1731d,f68013,f98e09,fb9d07,fcac11,fbbc21,f9cb35,f5db4c,f2ea69,f3f68a,fcffa4"
  .split(",").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

// 256 colours, three bytes each.
export const INFERNO = new Uint8Array(768);
for (let i = 0; i < 256; i++) {
  const at = (i / 255) * (STOPS.length - 1), low = Math.min(Math.floor(at), STOPS.length - 2);
  for (let c = 0; c < 3; c++) {
    INFERNO[3 * i + c] = Math.round(STOPS[low][c] + (STOPS[low + 1][c] - STOPS[low][c]) * (at - low));
  }
}

// How much a heat of 0 … 1 covers what lies under it, at full opacity: nothing where all is as learned.
export const cover = (heat) => Math.min(1, Math.max(0, (heat - 0.12) / 0.34));
