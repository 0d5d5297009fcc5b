"""The client of the CA's desk over HTTPS, for a host that trusts no server yet. The CA's certificate is fetched
first, without trust in the server. Its fingerprint is compared by the caller. Only then another connection is made,
to a server that this CA calls a controller: it alone gets the token's secret.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable

import httpx2
from pydantic import ValidationError

from sterna.adapters.identity.x509 import pem_of, read_certificates
from sterna.domain.errors import BadRequest, SternaError, Unreachable, from_wire
from sterna.domain.model import Data
from sterna.domain.trust.identities import CONTROLLER_SERVICE
from sterna.domain.trust.joining import MOST_PEM_BYTES, JoinAnswer, JoinRequest, RenewalRequest
from sterna.kit.threads import in_thread
from sterna.kit.tls_errors import in_words
from sterna.kit.urls import server_url

CA_PATH, JOIN_PATH, RENEW_PATH = "/v1/ca", "/v1/join", "/v1/renewals"
ANSWER_S = 15.0
"""Of each connection and of each read."""
LONGEST_S = 60.0
"""Of one question, whatever trickles in."""
_MOST_BYTES = 4 * MOST_PEM_BYTES


class HttpsDesk:
    """Implements ports.identity.CertificateIssuer for a host. `server`: `https://controller.example:8774`."""

    def __init__(self, server: str) -> None:
        self._server = server_url(server)

    async def ca(self) -> str:
        """The CA's certificate, from a server that is not trusted yet."""
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE  # the caller compares its fingerprint
        answer = await self._asked(lambda: self._get(nobody))
        found = answer.get("ca")
        if not isinstance(found, str):
            raise self._strange("it sends no certificate")
        certificates = read_certificates(found, f"the answer of {self._server}")
        if len(certificates) != 1:  # TLS would trust all of them, and only one has the fingerprint
            raise self._strange(f"it sends {len(certificates)} certificates for the one of the CA")
        return pem_of(certificates[0]).decode()

    async def join(self, request: JoinRequest, ca: str) -> JoinAnswer:
        """The first certificate."""
        return await self._signed(JOIN_PATH, request.model_dump(), ca)

    async def renew(self, request: RenewalRequest, ca: str) -> JoinAnswer:
        """The next certificate."""
        return await self._signed(RENEW_PATH, request.model_dump(), ca)

    async def _signed(self, path: str, body: Data, ca: str) -> JoinAnswer:
        try:
            trusted = ssl.create_default_context(cadata=ca)
        except ssl.SSLError as error:
            raise BadRequest(
                "the CA's certificate cannot be read", fix="check that the server is Sterna's"
            ) from error
        answer = await self._asked(lambda: self._post(path, body, trusted))
        try:
            return JoinAnswer.model_validate(answer)
        except ValidationError as error:
            raise self._strange("its answer is not a certificate") from error

    def _get(self, tls: ssl.SSLContext) -> Data:
        return self._exchange("GET", CA_PATH, None, tls)

    def _post(self, path: str, body: Data, tls: ssl.SSLContext) -> Data:
        return self._exchange("POST", path, body, tls)

    async def _asked(self, ask: Callable[[], Data]) -> Data:
        """In a thread: a resolver has no limit."""
        try:
            return await in_thread(ask, of=self._server, limit_s=LONGEST_S)
        except TimeoutError as error:
            raise self._away("no answer in time") from error

    def _exchange(self, method: str, path: str, body: Data | None, tls: ssl.SSLContext) -> Data:
        named = {"sni_hostname": CONTROLLER_SERVICE}  # what its certificate must say, wherever it is
        try:
            with (
                httpx2.Client(verify=tls, timeout=ANSWER_S, trust_env=False) as client,
                client.stream(method, self._server + path, json=body, extensions=named) as response,
            ):
                raw = bytearray()
                for part in response.iter_bytes():
                    raw += part
                    if len(raw) > _MOST_BYTES:
                        raise self._strange("its answer is too long")
                status = response.status_code
        except (httpx2.HTTPError, OSError) as error:
            raise self._failed(error) from error
        return self._read(status, bytes(raw))

    def _read(self, status: int, raw: bytes) -> Data:
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise self._strange(f"it answers with status {status} and no JSON") from error
        if not isinstance(answer, dict):
            raise self._strange("it answers with no JSON object")
        if status >= 400:
            raise self._refused(status, answer)
        return answer

    def _refused(self, status: int, problem: Data) -> SternaError:
        reasons = problem.get("reasons")
        if isinstance(reasons, list) and reasons and isinstance(reasons[0], dict):
            return from_wire({"message": f"{self._server} refuses", **reasons[0]})
        return self._strange(f"it answers with status {status}")

    def _failed(self, error: Exception) -> SternaError:
        if "CERTIFICATE_VERIFY_FAILED" in str(error) or "certificate verify failed" in str(error):
            return BadRequest(
                f"{self._server} does not prove to be a controller of this CA: {error}",
                fix="check that the address is the controller's, and that both clocks are right",
            )
        return self._away(in_words(error))

    def _away(self, why: str) -> Unreachable:
        fix = "check that the controller runs and serves HTTPS there; or join by files: `sterna agent request`"
        return Unreachable(f"{self._server} does not answer: {why}", fix=fix)

    def _strange(self, why: str) -> BadRequest:
        return BadRequest(
            f"{self._server} is not a Sterna controller: {why}", fix="check that the address is right"
        )
