package as4peer;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.StreamSupport;

import com.helger.json.IJson;
import com.helger.json.IJsonArray;
import com.helger.json.IJsonObject;
import com.helger.json.serialize.JsonReader;

/** JSON both ways: maps, lists, texts, numbers and booleans out; ph-json in. */
final class Json {
  private Json() {}

  /** One object. Throws IllegalArgumentException for anything else. */
  static IJsonObject read(String text) {
    IJson json = JsonReader.readFromString(text);
    if (json == null || !json.isObject())
      throw new IllegalArgumentException("not a JSON object");
    return json.getAsObject();
  }

  /** The objects of an array; none when the key is missing. */
  static List<IJsonObject> objects(IJsonObject json, String key) {
    IJsonArray array = json.getAsArray(key);
    if (array == null)
      return List.of();
    return StreamSupport.stream(array.spliterator(), false).map(IJson::getAsObject).toList();
  }

  static String need(IJsonObject json, String key) {
    String value = json.getAsString(key);
    if (value == null)
      throw new IllegalArgumentException("'" + key + "' is missing");
    return value;
  }

  /** A map in the order given: name, value, name, value. */
  static Map<String, Object> map(Object... pairs) {
    Map<String, Object> ret = new LinkedHashMap<>();
    for (int i = 0; i < pairs.length; i += 2)
      ret.put((String) pairs[i], pairs[i + 1]);
    return ret;
  }

  /** One line on standard output, whole even when several threads print. */
  static void print(Map<String, ?> value) {
    StringBuilder line = new StringBuilder();
    write(line, value);
    synchronized (System.out) {
      System.out.println(line);
      System.out.flush();
    }
  }

  private static void write(StringBuilder sb, Object v) {
    if (v == null || v instanceof Number || v instanceof Boolean) {
      sb.append(v);
    } else if (v instanceof Map<?, ?> map) {
      String before = "{";
      for (Map.Entry<?, ?> e : map.entrySet()) {
        sb.append(before);
        before = ",";
        text(sb, String.valueOf(e.getKey()));
        sb.append(':');
        write(sb, e.getValue());
      }
      sb.append(map.isEmpty() ? "{}" : "}");
    } else if (v instanceof Iterable<?> items) {
      sb.append('[');
      String before = "";
      for (Object o : items) {
        sb.append(before);
        before = ",";
        write(sb, o);
      }
      sb.append(']');
    } else {
      text(sb, v.toString());
    }
  }

  private static void text(StringBuilder sb, String s) {
    sb.append('"');
    for (int i = 0; i < s.length(); i++) {
      char c = s.charAt(i);
      if (c == '"' || c == '\\')
        sb.append('\\').append(c);
      else if (c < 0x20 || c > 0x7e)
        sb.append(String.format("\\u%04x", (int) c));
      else
        sb.append(c);
    }
    sb.append('"');
  }
}
