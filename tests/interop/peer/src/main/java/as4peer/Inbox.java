package as4peer;

import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

import org.w3c.dom.Node;

import com.helger.collection.commons.ICommonsList;
import com.helger.http.header.HttpHeaderMap;
import com.helger.phase4.attachment.WSS4JAttachment;
import com.helger.phase4.ebms3header.Ebms3Error;
import com.helger.phase4.ebms3header.Ebms3PartInfo;
import com.helger.phase4.ebms3header.Ebms3PartyId;
import com.helger.phase4.ebms3header.Ebms3Property;
import com.helger.phase4.ebms3header.Ebms3SignalMessage;
import com.helger.phase4.ebms3header.Ebms3UserMessage;
import com.helger.phase4.error.AS4ErrorList;
import com.helger.phase4.incoming.IAS4IncomingMessageMetadata;
import com.helger.phase4.incoming.IAS4IncomingMessageState;
import com.helger.phase4.incoming.spi.AS4MessageProcessorResult;
import com.helger.phase4.incoming.spi.AS4SignalMessageProcessorResult;
import com.helger.phase4.incoming.spi.IAS4IncomingMessageProcessorSPI;
import com.helger.phase4.model.error.EEbmsError;
import com.helger.phase4.model.pmode.IPMode;

/** Takes what phase4 has decrypted and verified: payloads into files, everything else as one line of JSON. */
final class Inbox implements IAS4IncomingMessageProcessorSPI {
  private final Site site;
  private final Set<String> taken = ConcurrentHashMap.newKeySet();

  Inbox(Site site) {
    this.site = site;
  }

  @Override
  public AS4MessageProcessorResult processAS4UserMessage(IAS4IncomingMessageMetadata metadata, HttpHeaderMap headers,
      Ebms3UserMessage message, IPMode pmode, Node body, ICommonsList<WSS4JAttachment> attachments,
      IAS4IncomingMessageState state, AS4ErrorList errors) {
    String id = message.getMessageInfo().getMessageId();
    String refusal = site.answers.error();
    if (refusal != null) {
      for (EEbmsError error : EEbmsError.values())
        if (error.getErrorCode().equals(refusal))
          errors.add(error.errorBuilder(state.getLocale()).refToMessageInError(id).errorDetail("as the test wants it").build());
      return AS4MessageProcessorResult.createFailure();
    }
    if (!taken.add(id)) {
      Json.print(Json.map("event", "duplicate", "site", site.name, "messageId", id));
      return AS4MessageProcessorResult.createSuccess();
    }
    try {
      Json.print(described(metadata, headers, message, body, payloads(attachments, id), state));
      return AS4MessageProcessorResult.createSuccess();
    } catch (RuntimeException ex) {
      taken.remove(id);
      // phase4 makes an ebMS error of it: EBMS:0303 when the content cannot be decompressed
      throw ex;
    } catch (Exception ex) {
      taken.remove(id);
      throw new IllegalStateException("cannot take the message", ex);
    }
  }

  private List<Object> payloads(ICommonsList<WSS4JAttachment> attachments, String id) throws Exception {
    List<Object> ret = new ArrayList<>();
    if (attachments == null)
      return ret;
    Path folder = Files.createDirectories(site.inbox.resolve(id.replaceAll("[^A-Za-z0-9._@-]", "_")));
    for (WSS4JAttachment attachment : attachments) {
      Path file = folder.resolve("payload-" + ret.size());
      MessageDigest sha = MessageDigest.getInstance("SHA-256");
      long size = 0;
      try (InputStream in = attachment.getInputStreamProvider().getInputStream();
          OutputStream to = Files.newOutputStream(file)) {
        byte[] block = new byte[65536];
        for (int n; (n = in.read(block)) > 0;) {
          sha.update(block, 0, n);
          to.write(block, 0, n);
          size += n;
        }
      }
      ret.add(Json.map("contentId", attachment.getId(), "mimeType", attachment.getUncompressedMimeType(), "compression",
          attachment.getCompressionMode() == null ? null : attachment.getCompressionMode().name(), "file",
          file.toString(), "size", size, "sha256", HexFormat.of().formatHex(sha.digest())));
    }
    return ret;
  }

  private Map<String, Object> described(IAS4IncomingMessageMetadata metadata, HttpHeaderMap headers,
      Ebms3UserMessage message, Node body, List<Object> payloads, IAS4IncomingMessageState state) {
    var info = message.getMessageInfo();
    var parties = message.getPartyInfo();
    var collaboration = message.getCollaborationInfo();
    var agreement = collaboration.getAgreementRef();
    List<Object> parts = new ArrayList<>();
    if (message.getPayloadInfo() != null)
      for (Ebms3PartInfo part : message.getPayloadInfo().getPartInfo())
        parts.add(Json.map("href", part.getHref(), "properties",
            part.getPartProperties() == null ? List.of() : properties(part.getPartProperties().getProperty())));
    List<String> http = new ArrayList<>();
    headers.forEachSingleHeader((name, value) -> http.add(name + ": " + value), true, false);
    return Json.map("event", "received", "site", site.name, "messageId", info.getMessageId(), "refToMessageId",
        info.getRefToMessageId(), "timestamp", String.valueOf(info.getTimestamp()), "mpc", message.getMpc(),
        "from", parties(parties.getFrom().getPartyId()), "fromRole", parties.getFrom().getRole(),
        "to", parties(parties.getTo().getPartyId()), "toRole", parties.getTo().getRole(),
        "service", collaboration.getService().getValue(), "serviceType", collaboration.getService().getType(),
        "action", collaboration.getAction(), "conversationId", collaboration.getConversationId(),
        "agreement", agreement == null ? null : Json.map("value", agreement.getValue(), "type", agreement.getType()),
        "properties",
        message.getMessageProperties() == null ? List.of() : properties(message.getMessageProperties().getProperty()),
        "parts", parts, "payloads", payloads, "bodyIsEmpty", body == null,
        "signed", state.isSoapSignatureChecked(), "encrypted", state.isSoapDecrypted(),
        "signer", state.getSigningCertificate() == null ? null
            : state.getSigningCertificate().getSubjectX500Principal().getName(),
        "signatureToken", Tokens.ofSignature(state.getOriginalSoapDocument()),
        "encryptionToken", Tokens.ofEncryption(state.getOriginalSoapDocument()),
        "clientCertificate", metadata.hasRemoteTlsCerts()
            ? metadata.remoteTlsCerts().getFirstOrNull().getSubjectX500Principal().getName() : null,
        "httpHeaders", http);
  }

  static Map<String, Object> error(Ebms3Error e) {
    return Json.map("code", e.getErrorCode(), "severity", e.getSeverity(), "category", e.getCategory(), "short",
        e.getShortDescription(), "detail", e.getErrorDetail(), "refToMessageInError", e.getRefToMessageInError());
  }

  private static List<Object> parties(List<Ebms3PartyId> ids) {
    List<Object> ret = new ArrayList<>();
    for (Ebms3PartyId id : ids)
      ret.add(Json.map("id", id.getValue(), "type", id.getType()));
    return ret;
  }

  private static List<Object> properties(List<Ebms3Property> properties) {
    List<Object> ret = new ArrayList<>();
    for (Ebms3Property p : properties)
      ret.add(Json.map("name", p.getName(), "type", p.getType(), "value", p.getValue()));
    return ret;
  }

  @Override
  public AS4SignalMessageProcessorResult processAS4SignalMessage(IAS4IncomingMessageMetadata metadata,
      HttpHeaderMap headers, Ebms3SignalMessage signal, IPMode pmode, IAS4IncomingMessageState state,
      AS4ErrorList errors) {
    List<Object> list = new ArrayList<>();
    for (Ebms3Error e : signal.getError())
      list.add(error(e));
    Json.print(Json.map("event", "signal", "site", site.name, "refToMessageId",
        signal.getMessageInfo().getRefToMessageId(), "receipt", signal.getReceipt() != null, "errors", list, "signed",
        state.isSoapSignatureChecked()));
    return AS4SignalMessageProcessorResult.createSuccess();
  }

  @Override
  public void processAS4ResponseMessage(IAS4IncomingMessageMetadata metadata, IAS4IncomingMessageState state,
      String responseId, byte[] response, boolean available, AS4ErrorList errors) {
    // the partner has it; nothing to keep
  }
}
