"""Anomaly values → colours, the same everywhere: black is `low`, the brightest yellow `high`."""

from __future__ import annotations

import base64

import numpy as np
from jaxtyping import Float, Float32, UInt8

from pirn_jax.scoring import Calibration, normalise

_STRIP = 1 << 19  # pixels that are coloured at a time

# matplotlib's inferno (CC0): 256 colours, three bytes each.
_INFERNO = np.frombuffer(
    base64.b85decode(
        b"0009300aO41_1yE0RagC0Sf{F4gvxY0|F8R0~7=U76k+t1_T=i1sw<m9|;B_3I`(#2PO>&C=LiJ4+$+02`>@~G7}"
        b"0k6bm*M3pp1HI~fZ;8Vf)i3_~3ZMIQ`DAPh<(3rr*nP9_UbCks+33sfr#RxJuxE(%&O3S2S?T{H<_H3?uh31K-2V"
        b"mk?BJPBn!31&bEW<d#OLkeg`3TZ|PX-ErdN(*XB3~NmcYflYqPz`KS4s25nZB-9#R}XDi5N%o!ZCep;T@r3z5^i7"
        b"<ZekQ}V-#*>6>eq~ZfF*6Y8P&67jA7BZf+QEa2alL8EtbKZFL)Mb{lPY9Bq0WZF?PTeI0Cm9&CUgYk?nYgCJ{#AZ"
        b"msoYKS3fi6Uu>B592yX^tdlkR)i4C1;Z*XO$*qmL_JHCuNx^WSb~toGD|TDPy22VxcQxqbp&gEMTTAU#Bf!sV-it"
        b"E?ulIT&^%%uQ6M(F<P=RS+p})wKG?@G*-AZR=PG-yEjz5H&ebiQolJ-!8%aFJ5R(sPQ^V<$39HRK1<0zO3Oe=%t1"
        b")aLPyU;M$kn>(MChkM?%y{LDfk>)=EFuOFr36J=#t?+fO>&P&wUFINnn?-&8i>Ry5*QGvin?<XSQ1TQKHaF6Le>="
        b"U*)7VJqokD(Yk?>t!eGXD01vCGBb>?rb9OZ6WY)AMkJ<@p2vVbR6<^8uND<^LZHbdKUG374?1;_J9)hff4tE5ch="
        b"+_=gSnhz$6O3;B!*`Hl$rkO=yb2l|r+`jrOymj?Tp2K$=^`<({+o(KD&2m7K3`=ko{rVIP14g0DN`>YWAt`hsO6#"
        b"KCj`?DDPwHo`k9Q(N*`nw_ey(9X+CHlcA`NJyt#Vq;9FZjtZ_{%i-%{TYYI``2$_R~N1)k5{xMfKT8^xI4H+)wk~"
        b"QuE+e^Ws_Z<X!USVDac=@#$#s>umAuaPjVR@$h-^@_q92f%5c)^Y)4K_l@=Vk@otP_xqXo{GIy!p#1)%"
    ),
    np.uint8,
).reshape(256, 3)


def colour_map(
    values: Float[np.ndarray, "H W"], low: float, high: float
) -> UInt8[np.ndarray, "H W 3"]:
    """A map in matplotlib's inferno.

    Args:
        values: of the map; what is not a number is drawn black.
        low: drawn black, as is everything below it.
        high: drawn brightest, as is everything above it. Where it is not above `low`, all is black.
    """
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    # 256 steps of equal length, the last of which holds 1.
    steps = np.clip(np.nan_to_num(share, posinf=1.0, neginf=0.0) * 256, 0, 255)
    colours = _INFERNO[steps.astype(np.uint8)]
    colours[np.isnan(share)] = 0
    return colours


def overlay(
    rgb: UInt8[np.ndarray, "H W 3"] | None,
    anomaly_map: Float32[np.ndarray, "H W"],
    calibration: Calibration | None,
) -> UInt8[np.ndarray, "H W 3"]:
    """The map in colours over the photograph in grey, where there is one.

    With a threshold the colours mean the same for every scan: black is the least there is, the
    middle of the scale is the threshold. Without one they span the map's own range.
    """
    low, high = float(anomaly_map.min()), float(anomaly_map.max())
    picture = np.empty((*anomaly_map.shape, 3), np.uint8)
    step = max(1, _STRIP // anomaly_map.shape[1])
    for start in range(0, len(picture), step):
        rows = slice(start, start + step)
        if calibration is None:
            colours = colour_map(anomaly_map[rows], low, high)
        else:
            colours = colour_map(normalise(anomaly_map[rows], calibration), 0.0, 1.0)
        if rgb is not None:
            grey = rgb[rows].mean(-1, keepdims=True)
            colours = np.rint(0.65 * colours + 0.35 * grey)
        picture[rows] = colours
    return picture
