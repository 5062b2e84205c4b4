package as4peer;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.Charset;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import javax.net.ssl.SSLContext;

import com.helger.httpclient.HttpClientSettings;
import com.helger.json.IJsonObject;
import com.helger.mime.parse.MimeTypeParser;
import com.helger.phase4.attachment.AS4OutgoingAttachment;
import com.helger.phase4.crypto.ECryptoKeyIdentifierType;
import com.helger.phase4.dump.AS4OutgoingDumperFileBased;
import com.helger.phase4.ebms3header.Ebms3Error;
import com.helger.phase4.messaging.http.HttpRetrySettings;
import com.helger.phase4.model.MessageProperty;
import com.helger.phase4.sender.AS4Sender;
import com.helger.phase4.sender.EAS4UserMessageSendResult;
import com.helger.phase4.sender.IAS4SignalMessageValidationResultHandler;

/** Sends a user message with phase4's client and judges the answer. */
final class Sender {
  private static final String ROLE = "http://docs.oasis-open.org/ebxml-msg/ebms/v3.0/ns/core/200704/";

  private final Site site;
  private final SSLContext tls;

  Sender(Site site, SSLContext tls) {
    this.site = site;
    this.tls = tls;
  }

  /** What came of it: ok, result, the receipt as phase4 verified it, errors. See README.md for the message's keys. */
  Map<String, Object> send(IJsonObject message) throws Exception {
    String id = Json.need(message, "messageId");
    Map<String, Object> receipt = Json.map();
    List<Object> errors = new ArrayList<>();
    List<Object> mismatches = new ArrayList<>();
    Map<String, Object> ret = Json.map("messageId", id);
    AS4Sender.BuilderUserMessage b = builder(message, id);
    b.rawResponseConsumer(response -> {
      if (response.hasResponseStatusLine())
        ret.put("httpStatus", response.getResponseStatusLine().getStatusCode());
      if (message.containsKey("dump"))
        try {
          Files.write(Path.of(message.getAsString("dump"), "response"), response.getResponseContent());
        } catch (IOException ex) {
          throw new UncheckedIOException(ex);
        }
    });
    b.signalMsgConsumer((signal, metadata, state) -> {
      receipt.put("present", signal.getReceipt() != null);
      receipt.put("refToMessageId", signal.getMessageInfo().getRefToMessageId());
      receipt.put("signed", state.isSoapSignatureChecked());
      receipt.put("signer", state.getSigningCertificate() == null ? null
          : state.getSigningCertificate().getSubjectX500Principal().getName());
      receipt.put("signatureToken", Tokens.ofSignature(state.getOriginalSoapDocument()));
      for (Ebms3Error e : signal.getError())
        errors.add(Inbox.error(e));
    });
    b.signalMsgValidationResultHdl(new IAS4SignalMessageValidationResultHandler() {
      @Override
      public void onSuccess() {
        receipt.putIfAbsent("references", "match");
      }

      @Override
      public void onError(String text) {
        receipt.put("references", "mismatch");
        mismatches.add(text);
      }

      @Override
      public void onNotApplicable() {
        receipt.putIfAbsent("references", "none");
      }
    });
    EAS4UserMessageSendResult result = b.sendMessageAndCheckForReceipt(ex -> ret.put("exception", rootOf(ex).toString()));
    ret.put("result", result.getID());
    ret.put("ok", result.isSuccess() && "match".equals(receipt.get("references"))
        && Boolean.TRUE.equals(receipt.get("signed")) && id.equals(receipt.get("refToMessageId")));
    ret.put("signal", receipt);
    ret.put("errors", errors);
    ret.put("mismatches", mismatches);
    return ret;
  }

  private AS4Sender.BuilderUserMessage builder(IJsonObject message, String id) throws Exception {
    AS4Sender.BuilderUserMessage b = AS4Sender.builderUserMessage();
    b.as4ProfileID(site.profile.id).pmode(site.outgoing()).pmodeResolver(site.agreement());
    b.cryptoFactorySign(site.keys.sign).cryptoFactoryCrypt(site.keys.crypt);
    b.receiverCertificate(site.keys.partner);
    site.profile.keyProtection(b.cryptParams());
    if (message.containsKey("signatureKeyIdentifier"))
      b.signingParams().setKeyIdentifierType(
          ECryptoKeyIdentifierType.valueOf(message.getAsString("signatureKeyIdentifier")));
    if (message.containsKey("encryptionKeyIdentifier"))
      b.cryptParams().setKeyIdentifierType(
          ECryptoKeyIdentifierType.valueOf(message.getAsString("encryptionKeyIdentifier")));
    b.signingParams().setUseSingleCertificate(!message.getAsBoolean("pkiPath", false));
    http(b, message);

    b.endpointURL(Json.need(message, "url"));
    b.messageID(id);
    b.refToMessageID(message.getAsString("refToMessageId"));
    b.conversationID(message.getAsString("conversationId"));
    b.agreementRef(message.getAsString("agreement"));
    b.agreementType(message.getAsString("agreementType"));
    b.fromPartyIDType(message.getAsString("fromType")).fromPartyID(Json.need(message, "from"));
    b.fromRole(message.getAsString("fromRole", ROLE + "initiator"));
    b.toPartyIDType(message.getAsString("toType")).toPartyID(Json.need(message, "to"));
    b.toRole(message.getAsString("toRole", ROLE + "responder"));
    b.service(message.getAsString("serviceType"), Json.need(message, "service"));
    b.action(Json.need(message, "action"));
    for (IJsonObject p : Json.objects(message, "properties"))
      b.addMessageProperty(new MessageProperty(p.getAsString("name"), p.getAsString("type"), p.getAsString("value")));
    for (IJsonObject part : Json.objects(message, "parts"))
      b.addAttachment(part(part));
    b.forceMimeMessage(message.getAsBoolean("forceMime", false));
    return b;
  }

  private static AS4OutgoingAttachment part(IJsonObject json) {
    AS4OutgoingAttachment.Builder part = AS4OutgoingAttachment.builder().data(Path.of(Json.need(json, "file")).toFile())
        .contentID(Json.need(json, "contentId")).mimeType(MimeTypeParser.safeParseMimeType(Json.need(json, "mimeType")));
    if (json.containsKey("charset"))
      part.charset(Charset.forName(json.getAsString("charset")));
    if (json.getAsBoolean("compress", true))
      part.compressionGZIP();
    for (IJsonObject p : Json.objects(json, "properties"))
      part.addCustomProperty(p.getAsString("name"), p.getAsString("value"));
    return part.build();
  }

  private void http(AS4Sender.BuilderUserMessage b, IJsonObject message) {
    HttpClientSettings settings = new HttpClientSettings();
    // whether something is sent again is for AS4's own retry to say
    settings.setRetryCount(0);
    if (tls != null)
      settings.setSSLContext(tls);
    b.httpClientFactory(settings);
    b.httpRetrySettings(new HttpRetrySettings().setMaxRetries(message.getAsInt("retries", 0))
        .setDurationBeforeRetry(Duration.ofMillis(200)));
    if (message.containsKey("dump")) {
      Path folder = Path.of(message.getAsString("dump"));
      b.outgoingDumper(new AS4OutgoingDumperFileBased((mode, id, attempt) -> folder.resolve("request-" + attempt).toFile()));
    }
  }

  private static Throwable rootOf(Throwable t) {
    return t.getCause() == null || t.getCause() == t ? t : rootOf(t.getCause());
  }
}
