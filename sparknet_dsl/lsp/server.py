"""The server: requests of an editor to the modules beside this one."""

from __future__ import annotations

import asyncio
import pathlib
from concurrent.futures import ThreadPoolExecutor

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from .. import __version__
from ..diagnostics import Span
from ..errors import ModelError
from ..format import format_text
from . import caffe, completion, diagnose, names, outline, tokens
from . import hover as hovering
from .document import Document

QUIET = 0.02  # seconds without a keystroke before a text is looked at


class Server(LanguageServer):
    """What is known of the files that are open."""

    def __init__(self) -> None:
        super().__init__("sparknet-lsp", __version__)
        self._documents: dict[str, tuple[int | None, Document]] = {}  # with the version of the text
        self._pending: dict[str, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1)  # one analysis at a time, so that requests are still answered

    async def document(self, uri: str) -> Document:
        """The file as it is now."""
        async with self._lock:
            open_file = self.workspace.get_text_document(uri)
            known = self._documents.get(uri)
            if known is not None and known[0] == open_file.version:
                return known[1]
            path = pathlib.Path(to_fs_path(uri) or "untitled.snet")
            arguments = (open_file.source, path, open_file.position_codec, known[1] if known else None)
            made = await asyncio.get_running_loop().run_in_executor(self._thread, Document, *arguments)
            self._documents[uri] = open_file.version, made
            return made

    def changed(self, uri: str, quiet: float) -> None:
        """Has a file looked at, once it has been left alone for `quiet` seconds."""
        self.forget(uri)
        self._pending[uri] = asyncio.get_running_loop().create_task(self._publish(uri, quiet))

    def forget(self, uri: str) -> None:
        """Looks no more at a file."""
        if uri in self._pending:
            self._pending.pop(uri).cancel()

    def close(self, uri: str) -> None:
        """A file that no editor shows any more has no diagnostics."""
        self.forget(uri)
        self._documents.pop(uri, None)
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))

    async def _publish(self, uri: str, quiet: float) -> None:
        await asyncio.sleep(quiet)
        try:
            version = self.workspace.get_text_document(uri).version
            found = diagnose.diagnostics(await self.document(uri), uri)
        except Exception as error:
            # A task's exception would be heard by nobody.
            text = f"sparknet-lsp cannot look at {uri}: {type(error).__name__}: {error}"
            self.window_show_message(types.ShowMessageParams(types.MessageType.Error, text))
            raise
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, found, version))


server = Server()


def _is_caffe(document: Document) -> bool:
    return document.path.suffix != ".snet"


# Texts


@server.feature(types.TEXT_DOCUMENT_DID_OPEN)
async def did_open(ls: Server, params: types.DidOpenTextDocumentParams) -> None:
    """Looks at the file at once."""
    ls.changed(params.text_document.uri, 0)


@server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
async def did_change(ls: Server, params: types.DidChangeTextDocumentParams) -> None:
    """Looks at it when the typing pauses."""
    ls.changed(params.text_document.uri, QUIET)


@server.feature(types.TEXT_DOCUMENT_DID_SAVE)
async def did_save(ls: Server, params: types.DidSaveTextDocumentParams) -> None:
    """Other open files may import this one."""
    for uri in list(ls._documents):
        if uri != params.text_document.uri:
            del ls._documents[uri]
            ls.changed(uri, 0)


@server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
async def did_close(ls: Server, params: types.DidCloseTextDocumentParams) -> None:
    """Forgets it."""
    ls.close(params.text_document.uri)


# Questions


@server.feature(types.TEXT_DOCUMENT_HOVER)
async def hover(ls: Server, params: types.HoverParams) -> types.Hover | None:
    """Shape, documentation, defaults."""
    document = await ls.document(params.text_document.uri)
    offset = document.offset(params.position)
    return caffe.hover(document, offset) if _is_caffe(document) else hovering.hover(document, offset)


@server.feature(
    types.TEXT_DOCUMENT_COMPLETION,
    types.CompletionOptions(trigger_characters=["(", ",", "=", "@", ".", '"', "`", ">", ":"]),
)
async def complete(ls: Server, params: types.CompletionParams) -> types.CompletionList | None:
    """What may come next."""
    document = await ls.document(params.text_document.uri)
    return None if _is_caffe(document) else completion.complete(document, document.offset(params.position))


async def _symbol(
    ls: Server, params: types.DefinitionParams | types.ReferenceParams | types.PrepareRenameParams
) -> tuple[Document, names.Symbol | None]:
    document = await ls.document(params.text_document.uri)
    return document, names.symbol_at(document, document.offset(params.position))


def _location(document: Document, uri: str, span: Span) -> types.Location:
    if document.holds(span):
        return types.Location(uri, document.range_of(span))
    begin, end = (span.line - 1, span.col - 1), (span.end_line - 1, span.end_col - 1)
    where = types.Range(types.Position(*begin), types.Position(*end))
    return types.Location(pathlib.Path(span.file).absolute().as_uri(), where)


@server.feature(types.TEXT_DOCUMENT_DEFINITION)
async def definition(ls: Server, params: types.DefinitionParams) -> list[types.Location]:
    """Where a label, a value, a block or an import is defined; a value has a definition in each phase."""
    document, symbol = await _symbol(ls, params)
    spans = symbol.definitions if symbol else []
    return [_location(document, params.text_document.uri, span) for span in spans]


@server.feature(types.TEXT_DOCUMENT_REFERENCES)
async def references(ls: Server, params: types.ReferenceParams) -> list[types.Location]:
    """Where it is read, and if asked where it is defined."""
    document, symbol = await _symbol(ls, params)
    if symbol is None:
        return []
    spans = symbol.spans if params.context.include_declaration else symbol.references
    return [_location(document, params.text_document.uri, span) for span in spans]


@server.feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))
async def rename(ls: Server, params: types.RenameParams) -> types.WorkspaceEdit:
    """Edits at all places of a name; an error with the reason where the new one would clash."""
    uri = params.text_document.uri
    document = await ls.document(uri)
    try:
        edits = names.rename(document, document.offset(params.position), params.new_name.strip("`"))
    except names.Refused as refused:
        raise JsonRpcException(str(refused), types.LSPErrorCodes.RequestFailed.value) from None
    return types.WorkspaceEdit({uri: [types.TextEdit(document.range_of(span), text) for span, text in edits]})


@server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
async def prepare_rename(ls: Server, params: types.PrepareRenameParams) -> types.Range | None:
    """The name that would be changed."""
    document, symbol = await _symbol(ls, params)
    offset = document.offset(params.position)
    spans = [span for span in symbol.spans if document.holds(span)] if symbol else []
    return next((document.range_of(span) for span in spans if span.start <= offset <= span.end), None)


@server.feature(types.TEXT_DOCUMENT_FORMATTING)
async def formatting(ls: Server, params: types.DocumentFormattingParams) -> list[types.TextEdit] | None:
    """The layout of sparknet-fmt; nothing while the syntax is wrong."""
    document = await ls.document(params.text_document.uri)
    text = document.source.text
    try:
        after = text if _is_caffe(document) else format_text(text, document.source.name)
    except ModelError:
        return None
    return [] if after == text else [types.TextEdit(document.range(0, len(text)), after)]


@server.feature(types.TEXT_DOCUMENT_INLAY_HINT)
async def inlay_hint(ls: Server, params: types.InlayHintParams) -> list[types.InlayHint]:
    """Shapes."""
    return outline.inlay_hints(await ls.document(params.text_document.uri), params.range)


@server.feature(
    types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix])
)
async def code_action(ls: Server, params: types.CodeActionParams) -> list[types.CodeAction]:
    """What "did you mean" proposes, as an edit."""
    uri = params.text_document.uri
    return diagnose.quick_fixes(await ls.document(uri), uri, params.range)


@server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
async def document_symbol(ls: Server, params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
    """The outline."""
    return outline.outline(await ls.document(params.text_document.uri))


@server.feature(
    types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, types.SemanticTokensLegend(token_types=tokens.TYPES, token_modifiers=[])
)
async def semantic_tokens(ls: Server, params: types.SemanticTokensParams) -> types.SemanticTokens:
    """What each name is."""
    return types.SemanticTokens(tokens.semantic_tokens(await ls.document(params.text_document.uri)))
