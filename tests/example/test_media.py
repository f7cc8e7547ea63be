from __future__ import annotations

import io
import json
import math
import threading
import time
import typing as t
import wave
from array import array
from itertools import pairwise
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from example_app import media
from example_app.demo import words_right
from example_app.media import audio
from example_app.media import speech
from example_app.media import stream as stream_module
from example_app.media.chunks import cut
from example_app.media.chunks import read as read_chunk
from flask_durable.store.branches import MAX_BRANCHES


def seconds_of(file: t.Any) -> float:
    with av.open(file) as container:
        frames = container.decode(container.streams.audio[0])
        return float(sum(frame.samples / frame.sample_rate for frame in frames))


def write_tone(
    path: Path, seconds: float, *, rate: int = 8000, channels: int = 2
) -> Path:
    """Write a tone in a form that nothing in the example uses by itself."""
    times = range(int(seconds * rate))
    tone = [int(9000 * math.sin(2 * math.pi * 440 * n / rate)) for n in times]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(
            array("h", [s for s in tone for _ in range(channels)]).tobytes()
        )
    return path


def write_as(path: Path, source: Path, codec: str, layout: str, rate: int) -> Path:
    """Write *source* once more, in another codec and container."""
    with av.open(source) as given, av.open(path, "w") as target:
        output = target.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(output, av.AudioStream)
        for frame in given.decode(audio=0):
            target.mux(output.encode(frame))
        target.mux(output.encode(None))
    return path


def transcript_of(path: Path, folder: Path) -> media.Transcript:
    """Recognise the words of a whole recording, a chunk after the other."""
    sound = folder / "sound.wav"
    chunks = media.split(path, sound)
    mean_spectrum = media.listen(sound)
    return media.join(
        [media.transcribe(sound, chunk, mean_spectrum) for chunk in chunks]
    )


def test_the_clip_is_described(clip: Path) -> None:
    metadata = media.probe(clip)

    assert (metadata.codec, metadata.sample_rate, metadata.channels) == (
        "pcm_s16le",
        16000,
        1,
    )
    assert metadata.seconds == pytest.approx(6.05, abs=0.01)
    assert metadata.size == clip.stat().st_size


def test_at_least_half_of_the_words_are_right(clip: Path, tmp_path: Path) -> None:
    transcript = transcript_of(clip, tmp_path)

    said = clip.with_suffix(".txt").read_text().split()
    assert words_right(said, transcript.text.split()) >= len(said) / 2
    assert transcript.words == len(transcript.text.split())


def test_each_segment_plays_alone_and_together_they_are_the_clip(
    clip: Path, tmp_path: Path
) -> None:
    stream = media.transcode(clip, tmp_path / "stream")

    segments = sorted((tmp_path / "stream").glob("*.mp3"))
    assert len(segments) == len(stream.segments) == 2
    for segment, seconds in zip(segments, stream.segments, strict=True):
        assert seconds_of(str(segment)) == pytest.approx(seconds, abs=0.001)
    # Up to two frames of silence are added by the codec.
    assert stream.seconds == pytest.approx(6.05, abs=0.06)
    joined = io.BytesIO(b"".join(segment.read_bytes() for segment in segments))
    assert seconds_of(joined) == pytest.approx(stream.seconds, abs=0.001)


def test_no_segment_needs_the_one_before(clip: Path, tmp_path: Path) -> None:
    media.transcode(clip, tmp_path / "stream")

    for segment in (tmp_path / "stream").glob("*.mp3"):
        frame = segment.read_bytes()
        assert frame[:2] == b"\xff\xfb"  # MPEG 1, layer 3, no checksum
        # How many bytes before its first frame that frame's sound begins.
        assert (frame[4] << 1 | frame[5] >> 7) == 0


def test_the_playlist_lists_the_segments(clip: Path, tmp_path: Path) -> None:
    stream = media.transcode(clip, tmp_path / "stream")

    playlist = (tmp_path / "stream" / "playlist.m3u8").read_text().splitlines()
    assert playlist[0] == "#EXTM3U"
    assert [line for line in playlist if line.endswith(".mp3")] == [
        "000.mp3",
        "001.mp3",
    ]
    lengths = [float(line[8:-1]) for line in playlist if line.startswith("#EXTINF:")]
    assert lengths == pytest.approx(stream.segments)


def test_a_second_transcoding_takes_the_first(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "streams" / "stream"
    first = media.transcode(clip, folder)
    written = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}

    assert media.transcode(clip, folder) == first
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == written
    assert list(folder.parent.iterdir()) == [folder]


def test_an_interrupted_transcoding_leaves_no_stream(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(segments: list[float]) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(stream_module, "_playlist", fail)
    with pytest.raises(OSError, match="disk full"):
        media.transcode(clip, tmp_path / "streams" / "stream")

    assert list((tmp_path / "streams").iterdir()) == []


def test_the_slower_of_two_transcodings_is_discarded(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given another worker that publishes while this one still writes
    folder = tmp_path / "streams" / "stream"
    write = stream_module._write

    def write_late(path: Path, work: Path) -> None:
        write(path, work)
        if not folder.exists():
            monkeypatch.setattr(stream_module, "_write", write)
            media.transcode(clip, folder)
            (folder / "000.mp3").write_bytes(b"the other's")

    monkeypatch.setattr(stream_module, "_write", write_late)

    # When this one is done
    media.transcode(clip, folder)

    # Then the other's files stay
    assert (folder / "000.mp3").read_bytes() == b"the other's"
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("name", "codec", "layout", "rate"),
    [
        ("clip.ogg", "libopus", "stereo", 48000),
        ("clip.m4a", "aac", "mono", 22050),
        ("clip.flac", "flac", "5.1", 96000),
        ("clip.mp3", "libmp3lame", "mono", 8000),
        ("clip.webm", "libopus", "mono", 16000),
    ],
)
def test_any_codec_rate_and_number_of_channels_is_understood(
    clip: Path, tmp_path: Path, name: str, codec: str, layout: str, rate: int
) -> None:
    path = write_as(tmp_path / name, clip, codec, layout, rate)

    assert media.probe(path).codec in {codec.removeprefix("lib"), "mp3", "mp3float"}
    stream = media.transcode(path, tmp_path / "stream")
    assert stream.seconds == pytest.approx(6.05, abs=0.2)
    sound = tmp_path / "sound.wav"
    assert media.split(path, sound)[-1].end == pytest.approx(6.05, abs=0.2)
    beginning = media.transcribe(sound, media.Chunk(0, 2), media.listen(sound))
    assert "married" in media.join([beginning]).text


def test_the_sound_of_a_video_is_taken(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with av.open(clip) as given, av.open(path, "w") as target:
        video = target.add_stream("mpeg4", rate=5, width=16, height=16)
        sound = target.add_stream("aac", rate=16000, layout="mono")
        for _ in range(30):
            target.mux(video.encode(av.VideoFrame(16, 16, "yuv420p")))
        target.mux(video.encode(None))
        for frame in given.decode(audio=0):
            target.mux(sound.encode(frame))
        target.mux(sound.encode(None))

    stream = media.transcode(path, tmp_path / "stream")

    assert stream.seconds == pytest.approx(6.05, abs=0.2)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:7\n#EXTINF:6.05,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 4096, b"Dear diary,\n" * 900, b"RIFF\xff\xff\xff\xffWAVEfmt "],
    ids=["empty", "zeros", "text", "cut header"],
)
def test_what_is_not_audio_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.wav"
    path.write_bytes(content)

    with pytest.raises(media.UnusableAudio):
        media.probe(path)
    with pytest.raises(media.UnusableAudio):
        media.transcode(path, tmp_path / "streams" / "stream")
    with pytest.raises(media.UnusableAudio):
        media.split(path, tmp_path / "streams" / "sound.wav")
    assert list((tmp_path / "streams").iterdir()) == []


@pytest.mark.parametrize("suffix", [".m3u8", ".wav", ".mp3", ""])
def test_a_playlist_cannot_make_it_read_other_files(
    clip: Path, tmp_path: Path, suffix: str
) -> None:
    secret = write_as(tmp_path / "secret.mp3", clip, "libmp3lame", "mono", 16000)
    path = tmp_path / f"upload{suffix}"
    path.write_text(PLAYLIST.format(f"file://{secret}"))

    with pytest.raises(media.UnusableAudio):
        media.probe(path)


def test_a_file_without_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(path, "w") as target:
        video = target.add_stream("mpeg4", rate=5, width=16, height=16)
        target.mux(video.encode(av.VideoFrame(16, 16, "yuv420p")))
        target.mux(video.encode(None))

    with pytest.raises(media.UnusableAudio, match="no sound"):
        media.probe(path)


def test_a_damaged_spot_does_not_spoil_the_rest(clip: Path, tmp_path: Path) -> None:
    path = write_as(tmp_path / "clip.mp3", clip, "libmp3lame", "mono", 16000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = b"\xa5" * 400
    path.write_bytes(content)

    stream = media.transcode(path, tmp_path / "stream")

    assert stream.seconds == pytest.approx(6.05, abs=1)


def test_what_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "LONGEST", 2)

    media.transcode(write_tone(tmp_path / "short.wav", 1.9), tmp_path / "short")
    with pytest.raises(media.UnusableAudio, match="longer"):
        media.transcode(write_tone(tmp_path / "long.wav", 3), tmp_path / "long")


def test_a_tone_has_no_words_and_an_even_waveform(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "tone.wav", 1)

    stream = media.transcode(path, tmp_path / "stream")

    assert media.probe(path).channels == 2
    assert min(stream.waveform[1:-3]) > 90
    assert json.loads((tmp_path / "stream" / "stream.json").read_text())["waveform"]


def test_utterances_follow_each_other_in_time(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the clip twice, which is longer than an utterance
    monkeypatch.setattr(speech, "UTTERANCE", 5)
    path = tmp_path / "long.wav"
    with wave.open(str(clip)) as given, wave.open(str(path), "wb") as target:
        target.setparams(given.getparams())
        target.writeframes(given.readframes(given.getnframes()) * 2)
    sound = tmp_path / "sound.wav"
    media.split(path, sound)

    passages = media.transcribe(sound, media.Chunk(0, 12.1), media.listen(sound))

    times = [time for passage in passages for time in (passage.start, passage.end)]
    assert times == sorted(times)
    assert times[-1] > 10
    words = " ".join(passage.text for passage in passages)
    assert words.count("married") == 2
    assert "<" not in words
    assert "(" not in words


def test_the_listener_hears_the_position_and_can_stop_it(
    clip: Path, tmp_path: Path
) -> None:
    sound = tmp_path / "sound.wav"
    media.split(clip, sound)
    positions: list[float] = []

    def heard(seconds: float) -> None:
        positions.append(seconds)
        if seconds > 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        media.transcribe(sound, media.Chunk(1, 6), media.listen(sound), heard)

    assert positions == pytest.approx([0.48, 0.96, 1.44, 1.92, 2.4])


def test_other_threads_run_while_it_listens(clip: Path, tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    media.split(clip, sound)
    mean_spectrum = media.listen(sound)
    # Given a thread that counts, as a heartbeat would
    beats: list[float] = []
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.01):
            beats.append(time.monotonic())

    thread = threading.Thread(target=beat)
    thread.start()

    # When it transcribes
    before: list[int] = []
    media.transcribe(
        sound,
        media.Chunk(0, 6),
        mean_spectrum,
        lambda seconds: before.append(len(beats)),
    )
    done.set()
    thread.join()

    # Then the thread ran again and again in between
    assert len(set(before)) > len(before) / 2


# Chunks


def test_a_recording_is_cut_where_it_is_quiet() -> None:
    # Given a second of noise, half a second of silence, and so on
    loudness = ([9000] * 50 + [10] * 25) * 8

    cuts = [chunk.start for chunk in cut(loudness)][1:]

    assert len(cuts) >= 3
    for seconds in cuts:
        assert 1.1 <= seconds % 1.5 <= 1.4  # in the middle of a silence


@given(st.lists(st.integers(0, 32768), min_size=1, max_size=300), st.integers(1, 300))
def test_chunks_are_the_whole_recording_and_not_too_many(
    loudness: list[int], repeated: int
) -> None:
    frames = loudness * repeated

    chunks = cut(frames)

    assert chunks[0].start == 0
    assert chunks[-1].end == len(frames) / 50
    assert all(one.end == next.start for one, next in pairwise(chunks))
    least = min(max(len(frames) / 50 / 16, 1), 15)
    lengths = [chunk.seconds for chunk in chunks]
    assert max(lengths) <= 3 * least + 0.05
    assert len(chunks) == 1 or min(lengths) >= least - 0.05
    assert len(chunks) <= 16 or least == 15


def test_four_hours_have_fewer_chunks_than_a_step_may_have_branches() -> None:
    # Given silence: of places that are all as quiet the first is taken
    assert len(cut([0] * audio.LONGEST * 50)) <= MAX_BRANCHES


def test_the_chunks_read_one_after_the_other_are_the_sound(
    clip: Path, tmp_path: Path
) -> None:
    sound = tmp_path / "sound.wav"
    chunks = media.split(clip, sound)

    read = b"".join(piece for chunk in chunks for piece in read_chunk(sound, chunk, 77))

    with wave.open(str(sound)) as file:
        assert file.getframerate() == 16000
        assert read == file.readframes(file.getnframes())
    assert len(chunks) == 3
    assert list(tmp_path.iterdir()) == [sound]


def test_a_passage_that_goes_over_a_cut_is_joined() -> None:
    transcript = media.join(
        [
            [media.Passage(0.0, 1.0, "once"), media.Passage(2.0, 3.0, "upon a")],
            [],
            [media.Passage(3.1, 3.5, "time"), media.Passage(5.0, 6.0, "there was")],
        ]
    )

    assert transcript.passages == [
        media.Passage(0.0, 1.0, "once"),
        media.Passage(2.0, 3.5, "upon a time"),
        media.Passage(5.0, 6.0, "there was"),
    ]
    assert transcript.words == 6
