"""Which encoder writes the output, with which options, and whether it works on this machine; used by sink."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from engines.errors import OutputError
from engines.installation import pip_install
from gnr_video.machine import has_avx512, usable_cores

ALIASES = {
    "h264": "libx264",
    "x264": "libx264",
    "avc": "libx264",
    "h265": "libx265",
    "x265": "libx265",
    "hevc": "libx265",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
}
"""What users write, and the encoder that is meant."""

LISTED = (
    "libx264",
    "libx265",
    "libvpx-vp9",
    "libsvtav1",
    "h264_nvenc",
    "hevc_nvenc",
    "av1_nvenc",
    "h264_qsv",
    "hevc_qsv",
    "h264_vaapi",
    "h264_videotoolbox",
    "hevc_videotoolbox",
)
"""The encoders that `list_encoders` opens."""

_HARDWARE = ("_nvenc", "_qsv", "_vaapi", "_videotoolbox")

_DEFAULT_CRF = {
    "libx264": 18,
    "libx265": 20,
    "libvpx-vp9": 24,
    "libsvtav1": 24,
    "h264_nvenc": 20,
    "hevc_nvenc": 22,
    "av1_nvenc": 26,
    "h264_qsv": 20,
    "hevc_qsv": 22,
    "h264_vaapi": 20,
}

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".gif": "gif",
    ".apng": "apng",
    ".webp": "webp",
}
"""Extension -> FFmpeg's muxer."""

ANIMATIONS = (".gif", ".apng", ".webp")
"""Those of them that are pictures, with no sound."""

_ALPHA_FORMATS = {
    "libvpx-vp9": "yuva420p",
    "libvpx": "yuva420p",
    "prores_ks": "yuva444p10le",
    "apng": "rgba",
    "libwebp_anim": "bgra",
}
"""Encoders that hold transparency, and the pixel format they take it in."""


def default_codec(extension: str, alpha: bool = False) -> str:
    """The encoder for a container when none is asked for.

    Args:
        extension: with its dot, lower case.
        alpha: whether there is transparency to be kept.
    """
    if alpha and extension == ".mov":
        return "prores_ks"
    own = {".webm": "libvpx-vp9", ".gif": "gif", ".apng": "apng", ".webp": "libwebp_anim"}
    return own.get(extension, "libx264")


def holds_shape(codec: str) -> bool:
    """Whether an encoder writes the shape of pixels into its stream; PyAV cannot write it into the container's."""
    return "264" in codec or "265" in codec or codec.startswith("hevc_")


def holds_alpha(codec: str, extension: str) -> bool:
    """Whether transparency is kept by an encoder in a container."""
    return codec == "gif" or (codec in _ALPHA_FORMATS and extension != ".mp4")


def gpu_codec(target: str | os.PathLike[str], size: tuple[int, int]) -> str | None:
    """NVIDIA's H.264 encoder, for a target that would get libx264 by default, where it works for pictures of that size.

    Not every NVIDIA GPU has it: H100 and A100 have none. For runs whose network is on such a GPU: it takes the encoder
    off the CPU, which is then what limits.
    """
    text = os.fspath(target)
    extension = os.path.splitext(text)[1].lower()
    if extension not in CONTAINERS or default_codec(extension) != "libx264" or os.path.isdir(text):
        return None
    width, height = (length + length % 2 for length in size)
    settings = EncoderSettings("h264_nvenc", width, height, Fraction(1, 30), Fraction(30))
    return None if probe(settings) else settings.codec


def fallback_codecs(extension: str) -> tuple[str, ...]:
    """Encoders to try in this order when the one asked for does not open."""
    if extension == ".webm":
        return ("libvpx-vp9", "libvpx")
    if extension in ANIMATIONS:
        return ()
    return ("libx264", "libopenh264")


def preset(codec: str) -> str | None:
    """The speed preset of an encoder: fast enough to stay behind the network, or None where it has none."""
    if codec in ("libx264", "libx265"):
        return "superfast"
    if codec == "libsvtav1":
        return "9"
    if codec.endswith("_nvenc"):
        return "p4"
    if codec.endswith("_qsv"):
        return "veryfast"
    return None


def encoder_options(codec: str, crf: int | None = None, *, live: bool = False) -> dict[str, str]:
    """The encoder's private options.

    Args:
        codec: FFmpeg's name of the encoder.
        crf: constant rate factor or, where an encoder has none, its constant quality; None: a value at which
            the background looks unchanged.
        live: cheap, and nothing is held back, so that the file can be closed at any moment.
    """
    quality = crf if crf is not None else _DEFAULT_CRF.get(codec)
    options: dict[str, str] = {}
    speed = preset(codec)
    if speed is not None:
        options["preset"] = speed
    if live and codec in ("libx264", "libx265"):
        options |= {"preset": "ultrafast" if codec == "libx265" else "superfast", "tune": "zerolatency"}
    elif codec == "libx264":
        # What makes files of "veryfast" small without what makes it slow: six tenths of its time, and a seventh more
        # bytes at equal PSNR.
        options |= {"mbtree": "1", "rc-lookahead": "10"}
    if codec in ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "libvpx") and quality is not None:
        options["crf"] = str(quality)
    if codec == "libx265":
        options["x265-params"] = "log-level=error"
    elif codec in ("libvpx-vp9", "libvpx"):
        options |= {"b": "0" if codec == "libvpx-vp9" else "4M", "deadline": "realtime", "cpu-used": "6"}
        if codec == "libvpx-vp9":
            options["row-mt"] = "1"
    elif codec.endswith("_nvenc"):
        options |= {"rc": "vbr", "cq": str(quality), "b": "0"}
    elif codec.endswith("_qsv"):
        options["global_quality"] = str(quality)
    elif codec.endswith("_vaapi"):
        options |= {"rc_mode": "CQP", "qp": str(quality)}
    elif codec == "prores_ks":
        options |= {"profile": "4", "alpha_bits": "16", "vendor": "apl0"}
    elif codec == "apng":
        options["pred"] = "mixed"
    elif codec == "libwebp_anim":
        options |= {"lossless": "0", "quality": "90"}
    elif codec.endswith("_videotoolbox"):
        # It takes no rate factor on every machine; this rate is ample for 1080p.
        options |= {"b": "12M", "allow_sw": "1"}
    return options


def pixel_format(codec: str, alpha: bool = False) -> str:
    """The layout that an encoder takes: of 8 bits and 4:2:0 where it has no transparency, and can."""
    if alpha:
        return _ALPHA_FORMATS[codec]
    if codec == "prores_ks":
        return "yuv422p10le"
    if codec in ("apng", "libwebp_anim"):
        return "rgb24" if codec == "apng" else "bgra"
    return "nv12" if codec.endswith(("_qsv", "_vaapi")) else "yuv420p"


def needs_even_size(codec: str) -> bool:
    """Whether an encoder refuses odd widths and heights at 4:2:0."""
    return codec not in ("libvpx-vp9", "libvpx", "gif", "apng", "libwebp_anim", "prores_ks")


def default_threads() -> int:
    """Encoder threads that leave one core for the network: the cores this process may use, less one."""
    return max(1, usable_cores() - 1)


@dataclass(frozen=True)
class EncoderSettings:
    """Everything that an encoder is opened with.

    Attributes:
        codec: FFmpeg's name.
        width, height: pixels as coded (even where the encoder needs it).
        time_base: seconds per pts unit.
        rate: nominal frames per second, for rate control only.
        crf: see `encoder_options`.
        threads: encoder threads, 0 for as many as it likes.
        live: see `encoder_options`; a key frame every two seconds at most.
        alpha: whether pictures come with transparency.
        fields: of interlaced pictures, the first: "top" or "bottom".
    """

    codec: str
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    crf: int | None = None
    threads: int = 0
    live: bool = False
    alpha: bool = False
    fields: str = ""

    def apply(self, context: Any) -> None:
        """Set up a fresh codec context, or the stream that holds one."""
        context.width, context.height = self.width, self.height
        context.pix_fmt = pixel_format(self.codec, self.alpha)
        context.time_base = self.time_base
        context.framerate = self.rate
        context.thread_count = self.threads
        # PyAV starts with slice threads, which cost x264 quality; AUTO leaves the choice to the encoder.
        context.thread_type = "AUTO"
        context.options = encoder_options(self.codec, self.crf, live=self.live)
        if self.codec == "libx264":
            asked = [f"{self.fields[0]}ff=1"] if self.fields else []
            if "mbtree" in context.options and has_avx512():
                # With AVX-512 x264's macroblock tree differs from run to run, where rows are no multiple of 256 pixels.
                asked.append("asm=avx2")
            if asked:
                context.options |= {"x264-params": ":".join(asked)}
        if self.live:
            context.gop_size = max(1, round(2 * self.rate))
        if self.codec == "libsvtav1":
            # The library writes a banner to stderr unless told so through its environment.
            os.environ.setdefault("SVT_LOG", "1")


def hardware(codec: str) -> Any:
    """PyAV's hardware device for encoders whose pictures must be uploaded (VA-API), else None."""
    if not codec.endswith("_vaapi"):
        return None
    from av.codec.hwaccel import HWAccel

    return HWAccel(device_type="vaapi", allow_software_fallback=False)


def probe(settings: EncoderSettings) -> str:
    """Open the encoder and encode one black frame: "" when that works, else the reason it does not.

    Hardware encoders are present in every FFmpeg build and fail only here.
    """
    import av

    if settings.codec == "libsvtav1" and min(settings.width, settings.height) < 64:
        return "it needs at least 64x64 pixels"  # some versions crash the process below that
    try:
        device = hardware(settings.codec)
        extra: dict[str, Any] = {} if device is None else {"hwaccel": device}
        context: Any = av.CodecContext.create(settings.codec, "w", **extra)
        settings.apply(context)
        frame = av.VideoFrame(settings.width, settings.height, pixel_format(settings.codec, settings.alpha))
        for plane, value in zip(frame.planes, (16, 128, 128)):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.time_base = 0, settings.time_base
        packets = [*context.encode(frame), *context.encode(None)]
    except (
        av.FFmpegError,
        ValueError,
        TypeError,
        NotImplementedError,
        RuntimeError,
        AttributeError,
    ) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"no such hardware or driver: {reason}" if settings.codec.endswith(_HARDWARE) else reason
    return "" if packets else "it gave no packet for a frame"


def choose_encoder(settings: EncoderSettings, fallbacks: tuple[str, ...]) -> tuple[EncoderSettings, str]:
    """The first encoder that works, starting with the one asked for.

    Returns:
        The settings to use, and "" or one line saying what was asked for, why not, and what is used.

    Raises:
        OutputError: the name is unknown, or nothing works.
    """
    import av

    codec = ALIASES.get(settings.codec, settings.codec)
    settings = replace(settings, codec=codec)
    if codec not in LISTED and codec not in av.codecs_available:
        raise OutputError(f"there is no encoder called {codec!r}", f"choose one of {', '.join(LISTED)}")
    reason = probe(settings)
    if not reason:
        return settings, ""
    for other in fallbacks:
        if other == codec or other not in av.codecs_available:
            continue
        # A quality given for another encoder's scale means nothing to this one.
        candidate = replace(settings, codec=other, crf=settings.crf if other == "libx264" else None)
        if not probe(candidate):
            return candidate, f"encoder {codec} does not work here ({reason}): writing with {other}"
    raise OutputError(
        f"encoder {codec} does not work here ({reason}), nor does any other",
        f"{pip_install('--force-reinstall', 'av')}, whose wheels carry libx264",
    )


def list_encoders() -> dict[str, bool]:
    """Every encoder of `LISTED`, and whether it encoded one frame on this machine just now."""
    import av

    def works(codec: str) -> bool:
        # 256x256: hardware encoders refuse very small pictures.
        settings = EncoderSettings(codec, 256, 256, Fraction(1, 30), Fraction(30), threads=1)
        return codec in av.codecs_available and not probe(settings)

    return {codec: works(codec) for codec in LISTED}
