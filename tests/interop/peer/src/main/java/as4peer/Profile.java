package as4peer;

import java.util.List;
import java.util.function.Function;

import com.helger.base.state.ETriState;
import com.helger.diagnostics.error.SingleError;
import com.helger.diagnostics.error.list.ErrorList;
import com.helger.phase4.CAS4;
import com.helger.phase4.crypto.AS4CryptParams;
import com.helger.phase4.crypto.ECryptoAlgorithmCrypt;
import com.helger.phase4.crypto.ECryptoAlgorithmSign;
import com.helger.phase4.crypto.ECryptoAlgorithmSignDigest;
import com.helger.phase4.ebms3header.Ebms3MessageProperties;
import com.helger.phase4.ebms3header.Ebms3UserMessage;
import com.helger.phase4.mgr.MetaAS4Manager;
import com.helger.phase4.model.EMEP;
import com.helger.phase4.model.EMEPBinding;
import com.helger.phase4.model.pmode.IPModeIDProvider;
import com.helger.phase4.model.pmode.PMode;
import com.helger.phase4.model.pmode.PModeParty;
import com.helger.phase4.model.pmode.PModePayloadService;
import com.helger.phase4.model.pmode.PModeReceptionAwareness;
import com.helger.phase4.attachment.EAS4CompressionMode;
import com.helger.phase4.model.pmode.leg.EPModeSendReceiptReplyPattern;
import com.helger.phase4.model.pmode.leg.PModeLeg;
import com.helger.phase4.model.pmode.leg.PModeLegBusinessInformation;
import com.helger.phase4.model.pmode.leg.PModeLegErrorHandling;
import com.helger.phase4.model.pmode.leg.PModeLegProtocol;
import com.helger.phase4.model.pmode.leg.PModeLegSecurity;
import com.helger.phase4.profile.AS4Profile;
import com.helger.phase4.profile.IAS4ProfileValidator;
import com.helger.phase4.wss.EWSSVersion;

/**
 * The eDelivery AS4 profiles, four corner, written with phase4-lib alone: the P-Mode of each, what is set on the sender
 * for key transport or key agreement, and the check of the four-corner properties.
 */
enum Profile {
  /** 1.15: RSA-SHA256, RSA-OAEP with SHA-256 and MGF1-SHA256, AES-128-GCM. */
  EDELIVERY1("edelivery1", ECryptoAlgorithmSign.RSA_SHA_256, c -> c),
  /** 2.0, common usage: Ed25519; X25519, HKDF, AES-128 key wrap; AES-128-GCM. */
  EDDSA("edelivery2-eddsa", ECryptoAlgorithmSign.EDDSA_ED25519, AS4CryptParams::setEDelivery2KeyAgreementX25519),
  /** 2.0, alternative elliptic curve: ECDSA-SHA256; ECDH-ES, HKDF, AES-128 key wrap; AES-128-GCM. */
  ECDSA("edelivery2-ecdsa", ECryptoAlgorithmSign.ECDSA_SHA_256, AS4CryptParams::setEDelivery2KeyAgreementECDHES);

  final String id;
  private final ECryptoAlgorithmSign signature;
  private final Function<AS4CryptParams, AS4CryptParams> keyProtection;

  Profile(String id, ECryptoAlgorithmSign signature, Function<AS4CryptParams, AS4CryptParams> keyProtection) {
    this.id = id;
    this.signature = signature;
    this.keyProtection = keyProtection;
  }

  static Profile of(String id) {
    for (Profile p : values())
      if (p.id.equals(id))
        return p;
    throw new IllegalArgumentException("unknown profile " + id);
  }

  /** Makes the profiles known to phase4; needs its global scope. */
  static void registerAll() {
    for (Profile p : values())
      MetaAS4Manager.getProfileMgr().registerProfile(new AS4Profile(p.id, "eDelivery AS4 " + p.id, Validator::new,
          (initiator, responder, address) -> p.pmode(initiator, responder), IPModeIDProvider.DEFAULT_DYNAMIC, false,
          false));
  }

  /** What the P-Mode does not say: how the content key is protected. */
  void keyProtection(AS4CryptParams params) {
    keyProtection.apply(params);
  }

  PMode pmode(String initiatorId, String responderId) {
    PModeParty initiator = new PModeParty(null, initiatorId, CAS4.DEFAULT_INITIATOR_URL, null, null);
    PModeParty responder = new PModeParty(null, responderId, CAS4.DEFAULT_RESPONDER_URL, null, null);

    PModeLegSecurity security = new PModeLegSecurity();
    security.setWSSVersion(EWSSVersion.WSS_111);
    security.setX509SignatureAlgorithm(signature);
    security.setX509SignatureHashFunction(ECryptoAlgorithmSignDigest.DIGEST_SHA_256);
    security.setX509EncryptionAlgorithm(ECryptoAlgorithmCrypt.AES_128_GCM);
    security.setX509EncryptionMinimumStrength(128);
    security.setPModeAuthorize(false);
    security.setSendReceipt(true);
    security.setSendReceiptNonRepudiation(true);
    security.setSendReceiptReplyPattern(EPModeSendReceiptReplyPattern.RESPONSE);

    PModeLegErrorHandling errors = PModeLegErrorHandling.createUndefined();
    errors.setReportAsResponse(true);

    PModeLeg leg = new PModeLeg(PModeLegProtocol.createForDefaultSoapVersion(null),
        new PModeLegBusinessInformation(null, null, null, null, null, null, CAS4.DEFAULT_MPC_ID), errors, null, security);
    return new PMode(id + "-" + IPModeIDProvider.DEFAULT_DYNAMIC.getPModeID(initiator, responder), initiator, responder,
        null, EMEP.ONE_WAY, EMEPBinding.PUSH, leg, null, new PModePayloadService(EAS4CompressionMode.GZIP),
        new PModeReceptionAwareness(ETriState.TRUE, ETriState.TRUE, 1, 10_000, ETriState.TRUE));
  }

  /** Four Corner: originalSender and finalRecipient, each once. */
  private static final class Validator implements IAS4ProfileValidator {
    @Override
    public void validateUserMessage(Ebms3UserMessage message, ErrorList errors) {
      Ebms3MessageProperties properties = message.getMessageProperties();
      for (String name : List.of(CAS4.ORIGINAL_SENDER, CAS4.FINAL_RECIPIENT)) {
        long found = properties == null ? 0
            : properties.getProperty().stream().filter(p -> name.equals(p.getName())).count();
        if (found != 1)
          errors.add(SingleError.builderError().errorText("the message property " + name + " is there " + found
              + " times").build());
      }
    }
  }
}
