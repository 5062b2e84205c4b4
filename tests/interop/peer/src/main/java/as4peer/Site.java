package as4peer;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Set;
import java.util.stream.StreamSupport;

import com.helger.json.IJsonObject;
import com.helger.phase4.crypto.AS4SigningParams;
import com.helger.phase4.crypto.ECryptoKeyIdentifierType;
import com.helger.phase4.incoming.crypto.AS4IncomingSecurityConfiguration;
import com.helger.phase4.model.pmode.IPMode;
import com.helger.phase4.model.pmode.resolve.IAS4PModeResolver;

/** One party of ours under one profile: its keys, its one agreement, and how it answers at present. */
final class Site {
  final String name;
  final Profile profile;
  final Keys keys;
  final Path inbox;
  private final String party;
  private final String partner;
  private final Set<String> actions = new HashSet<>();
  /** How the next messages are answered; changed by the command "answer". */
  volatile Answers answers = new Answers(null, "BST_DIRECT_REFERENCE", false, false);

  /**
   * @param error refuse with this ebMS error instead of taking the message
   * @param keyIdentifier how receipts and errors name the signing certificate
   * @param pkiPath put the whole path into the token
   * @param repeatReceipts answer a duplicate with a receipt, as AS4 wants it, instead of phase4's error
   */
  record Answers(String error, String keyIdentifier, boolean pkiPath, boolean repeatReceipts) {}

  Site(IJsonObject json, Path base, Path out) throws Exception {
    name = Json.need(json, "name");
    profile = Profile.of(Json.need(json, "profile"));
    keys = new Keys(json, base);
    inbox = Files.createDirectories(out.resolve(name));
    party = Json.need(json, "party");
    partner = Json.need(json, "partner");
    StreamSupport.stream(json.getAsArray("actions").spliterator(), false)
        .forEach(action -> actions.add(action.getAsValue().getAsString()));
  }

  /** Our agreement: messages of the partner to us, with the actions agreed on. */
  IAS4PModeResolver agreement() {
    return (id, service, action, initiator, responder, agreementRef, address) -> initiator.equals(partner)
        && responder.equals(party) && actions.contains(action) ? incoming() : null;
  }

  IPMode incoming() {
    return profile.pmode(partner, party);
  }

  /** What we send; and the fallback for signals, which name no parties. */
  IPMode outgoing() {
    return profile.pmode(party, partner);
  }

  AS4IncomingSecurityConfiguration security() {
    Answers now = answers;
    return new AS4IncomingSecurityConfiguration().setSigningParams(new AS4SigningParams()
        .setKeyIdentifierType(ECryptoKeyIdentifierType.valueOf(now.keyIdentifier())).setUseSingleCertificate(!now.pkiPath()));
  }
}
