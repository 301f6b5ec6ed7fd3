"""Serves the page for correcting recorded questions, on this machine alone.

Only requests whose Host and Origin are this server's are answered, so that no other web page can reach it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np

from cooper_ros.recording.corrections import Correction, CorrectionError, CorrectionStore
from cooper_ros.recording.desk import Desk, Entry
from cooper_ros.recording.reader import Pictures

HOST = '127.0.0.1'
PAGE = Path(__file__).with_name('correct.html')
LARGEST_BODY = 32 * 1024 * 1024
_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class CorrectionServer(ThreadingHTTPServer):
    """The server; ``serve_forever`` runs it.

    :param port: 0 takes any that is free
    :raises OSError: the port is taken
    """

    daemon_threads = True

    def __init__(self, desk: Desk, port: int = 0) -> None:
        self.desk = desk
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f'http://{HOST}:{self.server_address[1]}/'


class _Handler(BaseHTTPRequestHandler):
    server: CorrectionServer

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, act: Callable[[list[str]], tuple[str, bytes]]) -> None:
        try:
            self._check_origin()
            kind, body = act([unquote(part) for part in self.path.split('?')[0].strip('/').split('/')])
        except ValueError as error:  # of what was sent, or of a bag that is gone or damaged
            self._send(HTTPStatus.BAD_REQUEST, 'application/json', json.dumps({'problem': str(error)}).encode())
        except LookupError as error:
            self._send(HTTPStatus.NOT_FOUND, 'application/json', json.dumps({'problem': str(error)}).encode())
        except OSError as error:
            text = f'the correction cannot be written: {error}'
            self._send(HTTPStatus.INSUFFICIENT_STORAGE, 'application/json', json.dumps({'problem': text}).encode())
        else:
            self._send(HTTPStatus.OK, kind, body)

    def _check_origin(self) -> None:
        port = self.server.server_address[1]
        ours = {f'{name}:{port}' for name in (HOST, 'localhost')}
        origin = self.headers.get('Origin')
        if self.headers.get('Host') not in ours or (origin and origin.removeprefix('http://') not in ours):
            raise CorrectionError(f'this page is for {self.server.url} alone')

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        headers = {
            'Content-Type': kind,
            'Content-Length': str(len(body)),
            'Cache-Control': 'no-store',
            'Content-Security-Policy': _POLICY,
            'X-Content-Type-Options': 'nosniff',
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""

    def _get(self, parts: list[str]) -> tuple[str, bytes]:
        desk = self.server.desk
        if parts == ['']:
            return 'text/html; charset=utf-8', PAGE.read_bytes()
        if parts == ['questions']:
            listed = {'questions': [describe(entry) for entry in desk.entries()]}
            listed['damages'] = {str(bag): text for bag, text in desk.damages.items()}
            return 'application/json', json.dumps(listed, allow_nan=False).encode()
        if len(parts) == 3 and parts[0] == 'pictures':
            return 'image/png', png(picture(desk, parts[1], parts[2]))
        raise LookupError(f'there is nothing at /{"/".join(parts)}')

    def _post(self, parts: list[str]) -> tuple[str, bytes]:
        if len(parts) != 2 or parts[0] != 'questions':
            raise LookupError(f'there is nothing at /{"/".join(parts)}')
        if self.headers.get_content_type() != 'application/json':
            raise CorrectionError('send application/json')
        length = int(self.headers.get('Content-Length') or 0)
        if not 0 < length <= LARGEST_BODY:
            raise CorrectionError(f'a body of {length} bytes; expected 1 to {LARGEST_BODY}')
        desk = self.server.desk
        new = desk.correct(correction_from(parts[1], json.loads(self.rfile.read(length))))
        entry = describe(desk.entry(parts[1]))
        return 'application/json', json.dumps({'new': new, 'question': entry}, allow_nan=False).encode()


def describe(entry: Entry) -> dict[str, Any]:
    """Return what the page shows of a question, beside its pictures."""
    names = ('query_id', 'question', 'choices', 'mode', 'answer', 'thoughts', 'timings', 'problem', 'stamp_ns')
    told = {name: getattr(entry.question, name) for name in names}
    verdict = entry.verdict
    return {
        **told,
        'objects': [{'id': number, 'name': name} for number, name in entry.question.objects.items()],
        'bag': entry.bag.name,
        'verdict': {'answer': verdict.answer, 'note': verdict.note, 'useless': verdict.useless},
        'masks': sorted(verdict.masks),
    }


def correction_from(query_id: str, body: Any) -> Correction:
    """Return the correction that the page sent.

    :raises CorrectionError: it is not of the form that the page sends
    """
    if not isinstance(body, dict):
        raise CorrectionError('send an object with answer, note, useless, object or mask')
    texts = {name: body.get(name, '') for name in ('answer', 'note', 'object', 'mask')}
    wrong = [name for name, value in texts.items() if not isinstance(value, str)]
    if wrong or not isinstance(body.get('useless'), (bool, type(None))):
        raise CorrectionError(f'{", ".join(wrong) or "useless"}: of the wrong type')
    mask = None
    if data := texts.pop('mask'):
        content = np.frombuffer(base64.b64decode(data.rpartition(',')[2], validate=True), np.uint8)
        decoded = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if content.size else None
        if decoded is None:
            raise CorrectionError('the mask is no picture; send a PNG')
        mask = decoded > 127
    return Correction(query_id=query_id, useless=body.get('useless'), mask=mask, **texts)


def picture(desk: Desk, query_id: str, name: str) -> np.ndarray:
    """Return a picture by name: image, depth, segmentation, or mask-NAME for one object.

    :raises LookupError: there is no such picture
    """
    pictures = desk.pictures(query_id)
    if name == 'segmentation':
        found = _overlay(pictures)
    elif name.startswith('mask-'):
        found = _mask(desk, query_id, name.removeprefix('mask-'))
    else:
        found = {'image': pictures.image, 'depth': pictures.depth_color}.get(name)
    if found is None:
        raise LookupError(f'question {query_id} has no picture {name}')
    return found


def _overlay(pictures: Pictures) -> np.ndarray | None:
    """Return the segmentation over the image, as strong as the image, where there are objects."""
    if pictures.segmentation is None or pictures.image is None or pictures.instances is None:
        return pictures.segmentation
    mixed = (pictures.image.astype(np.uint16) + pictures.segmentation) // 2
    return np.where(pictures.instances[:, :, None] > 0, mixed, pictures.image).astype(np.uint8)


def _mask(desk: Desk, query_id: str, name: str) -> np.ndarray | None:
    """Return an object's mask: as corrected, else as generated; of several of one name all together."""
    entry = desk.entry(query_id)
    if name in entry.verdict.masks:
        found = CorrectionStore(entry.bag).mask(entry.verdict, name)
    else:
        instances = desk.pictures(query_id).instances
        ids = [number for number, each in entry.question.objects.items() if each == name]
        found = None if instances is None or not ids else np.isin(instances, ids)
    return None if found is None else found.astype(np.uint8) * 255


def png(pixels: np.ndarray) -> bytes:
    """Return an RGB or grey image as PNG."""
    colours = pixels[:, :, ::-1] if pixels.ndim == 3 else pixels
    return cv2.imencode('.png', colours, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
