package as4peer;

import java.util.Locale;

import org.w3c.dom.Document;
import org.w3c.dom.Element;
import org.w3c.dom.Node;
import org.w3c.dom.NodeList;

/** How a message names certificates; read from the envelope, since phase4 reports the signature's kind for both. */
final class Tokens {
  private static final String DS = "http://www.w3.org/2000/09/xmldsig#";
  private static final String XENC = "http://www.w3.org/2001/04/xmlenc#";
  private static final String WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";

  private Tokens() {}

  static String ofSignature(Document soap) {
    return kind(first(soap, DS, "Signature"));
  }

  static String ofEncryption(Document soap) {
    return kind(first(soap, XENC, "EncryptedKey"));
  }

  /** "x509v3", "x509pkipathv1" (both by reference), "x509subjectkeyidentifier", "thumbprintsha1", "x509issuerserial" ... */
  private static String kind(Element in) {
    Element reference = in == null ? null : first(in, WSSE, "SecurityTokenReference");
    if (reference == null)
      return null;
    Element child = firstChild(reference);
    String type = child.getAttribute("ValueType");
    if (!type.isEmpty())
      return (child.getLocalName().equals("KeyIdentifier") ? "" : "direct-")
          + type.substring(type.indexOf('#') + 1).toLowerCase(Locale.ROOT);
    return firstChild(child).getLocalName().toLowerCase(Locale.ROOT);
  }

  private static Element first(Node in, String namespace, String name) {
    NodeList found = in instanceof Document d ? d.getElementsByTagNameNS(namespace, name)
        : ((Element) in).getElementsByTagNameNS(namespace, name);
    return (Element) found.item(0);
  }

  private static Element firstChild(Element of) {
    for (Node n = of.getFirstChild(); n != null; n = n.getNextSibling())
      if (n instanceof Element e)
        return e;
    return of;
  }
}
